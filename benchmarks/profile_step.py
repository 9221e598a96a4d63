"""Where the time of train.py's default step goes (speed.py --profile). On a CPU Paddle computes at once, so a call's
time is its work's."""
import time
from contextlib import closing, contextmanager
from pathlib import Path

import paddle

import recipe
import train
from dataReader import DataReader
from support.device import choose_device, choose_precision
from training import layers
from training.draws import RunDraws
from training.monitor import Monitor
from training.players import build_players

STEPS, WARM_UP = 60, 10
PARTS = ("reader", "noise", "augmentation", "forward", "backward", "Adam", "average", "monitor", "rest")


class Clock:
    """Seconds by part. A part inside another counts for itself alone."""

    def __init__(self):
        self.seconds, self.inner = dict.fromkeys(PARTS, 0.0), [0.0]

    @contextmanager
    def part(self, name):
        self.inner.append(0.0)
        started = time.perf_counter()
        yield
        whole = time.perf_counter() - started
        self.seconds[name] += whole - self.inner.pop()
        self.inner[-1] += whole

    def watch(self, owner, function, name):
        """Counts each call of owner.function as the part `name`."""
        original = getattr(owner, function)

        def watched(*arguments, **options):
            with self.part(name):
                return original(*arguments, **options)

        setattr(owner, function, watched)


def profile(data, folder):
    """Runs steps of the default recipe on the packed faces in `data`; returns part → milliseconds a step, and the precision."""
    options = recipe.parse_options(typed=[])
    reader = DataReader(data, options.batch, flip=options.flip)
    settled = recipe.make_recipe(options, len(reader), reader.size)
    precision = choose_precision(options.amp, choose_device("cpu"))
    trainer = train.Trainer(build_players(settled, reader.size, precision=precision), settled)
    clock = Clock()
    for owner, function, name in ((RunDraws, "begin", "noise"), (RunDraws, "augmented", "augmentation"),
                                  (layers, "run", "forward"),
                                  (paddle.Tensor, "backward", "backward"), (paddle.optimizer.Adam, "step", "Adam"),
                                  (paddle.optimizer.Adam, "clear_grad", "Adam"), (train.Trainer, "update_average", "average"),
                                  (Monitor, "record", "monitor")):
        clock.watch(owner, function, name)
    Path(folder).mkdir(exist_ok=True)
    monitor = Monitor(folder, 0, STEPS, 1000, settled.batch)
    batches = reader.batches()

    def timed_batches():
        while True:
            with clock.part("reader"):
                batch = next(batches)
            yield batch

    with closing(monitor), closing(batches):
        for step in range(STEPS):
            if step == WARM_UP:
                clock.seconds = dict.fromkeys(PARTS, 0.0)
            with clock.part("rest"):
                trainer.set_rates(step, STEPS)
                monitor.record(*trainer.step(step, timed_batches()))
                trainer.update_average((step + 1) * settled.batch, settled.batch)
    return {name: 1000 * seconds / (STEPS - WARM_UP) for name, seconds in clock.seconds.items()}, precision


def table(parts, precision):
    """The profile as lines of text."""
    whole = sum(parts.values())
    lines = [f"a default step in {precision}: {whole:.1f} ms"]
    lines += [f"  {name:14}{parts[name]:8.2f} ms{100 * parts[name] / whole:7.1f} %" for name in PARTS]
    networks = parts["forward"] + parts["backward"]
    return "\n".join([*lines, f"  outside the networks' forward and backward passes: {100 * (1 - networks / whole):.1f} %"])
