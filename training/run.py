"""A training run in its folder: what is saved, scored, drawn and printed, and when; how the run starts, resumes and stops."""
from support.cli import UserError, printable, stop_signals

import math
import shlex
import sys
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import paddle

from intake.sources import BUILTIN
from network import certainty, draw_faces
from recipe import EARLY_SAMPLES, EARLY_SCORES, EPOCHS, MIN_STEPS, differences
from scoring import metrics
from support import figures
from support.files import claim, numbered_folder, sweep, write_json
from training import checkpoint, ranks, weights
from training.monitor import LOG_EVERY, MIN_HELD_OUT, Monitor, RealFaces
from training.players import networks_and_adams
from training.randomness import face_inputs
from training.start import describe_start, start_from

FIRST_FACES = 500  # steps after which faces begin to show, about


@contextmanager
def own_folder(options, reader):
    """The run's folder, claimed by rank 0; another rank gets a temporary one.

    A run on the built-in faces has a folder of its own, so that Output stays free for photos and generator.py does not draw with
    the built-in faces.
    """
    if ranks.RANK > 0:
        with TemporaryDirectory() as folder:
            yield Path(folder)
        return
    builtin = options.out is None and reader.manifest["sources"] == [BUILTIN]
    folder = Path(options.out or ("Output-builtin" if builtin else weights.RUN))
    if options.fresh:
        folder = numbered_folder(folder)
    if builtin:
        print(f"the run is saved in {folder}, because these are the built-in faces; {weights.RUN} stays free for your photos")
    folder.mkdir(parents=True, exist_ok=True)
    with claim(folder):
        sweep(folder, folder / "samples")
        yield folder


class Run:
    """A run in its `folder`, which must be claimed: see `own_folder`.

    options    the parsed options; those that decide the weights are in the `recipe`
    reader     the DataReader that gives the batches
    precision  of this process: float32, bfloat16 or float16; a run may resume in another

    step         steps done
    total_steps  steps that the run has when it is done
    step_images  real faces a step, over all ranks
    stop_signal  the signal that asks the run to stop, or None
    """

    def __init__(self, folder, options, recipe, reader, precision):
        """Reads how far the run is, and says so.

        Raises UserError when the run was started with options that lead to other weights.
        """
        self.folder, self.options, self.recipe, self.reader = folder, options, recipe, reader
        faces = reader.facts()
        ranks.require_same({**vars(options), "amp": precision}, faces)
        ranks.copy_from_first(folder / weights.CHECKPOINT)
        self.saved = checkpoint.read_facts(folder / weights.CHECKPOINT)
        start = describe_start(recipe.from_) if recipe.from_ else ""
        self.start = printable(self.saved["options"].get("start", start)) if self.saved else start
        # what options.json and the weights say
        self.facts = {**asdict(recipe), **faces, "precision": precision, "start": self.start}
        if self.saved:
            differing = differences(self.saved["options"], self.facts, options.data)
            if differing:
                raise UserError(f"the run in {folder} was started with other options: {'; '.join(differing)}. Type them as they "
                                "were to resume it, or add --fresh to start a new run beside it")
        elif weights.best_of(folder).exists():
            raise UserError(f"{weights.best_of(folder)} is of an earlier run, whose {weights.CHECKPOINT} is missing; add --fresh "
                            "to start a new run beside it")
        self.steps_per_epoch = math.ceil(reader.batches_per_epoch / recipe.d_steps)  # an epoch: D sees every face about once
        self.step_images = reader.batch_size * recipe.d_steps
        self.step = self.saved["step"] if self.saved else 0
        self.total_steps = total_steps(options, self.steps_per_epoch)
        self.stop_signal = None
        self.announce(precision)

    def announce(self, precision):
        """Prints where the run is."""
        if self.step >= self.total_steps:
            print(f"nothing left to do: the run in {self.folder} has {self.step} steps already, and {self.total_steps} are asked "
                  f"for; for more type: {resume_command(self.folder, 2 * self.step)}")
            return
        before = self.saved["options"].get("precision", precision) if self.saved else precision
        if before != precision:
            print(f"note: the run computed in {printable(before)} so far; it resumes in {precision}")
        print(f"run: {self.folder}, " + (f"resumes at step {self.step} of {self.total_steps}" if self.saved
                                         else f"{self.total_steps} steps"))
        if self.start:
            print(f"from: {self.start}")
        if self.options.fresh:
            print(f"to resume it later, type --out {self.folder} instead of --fresh")
        if self.total_steps < FIRST_FACES and not self.start:
            print(f"note: {self.total_steps} steps are few; faces begin to show after about {FIRST_FACES}: --steps {FIRST_FACES}")

    @contextmanager
    def begin(self, players):
        """Loads or starts the run. Inside the block a signal to stop takes effect at the end of a step. Gives the batches.

        A loss or weight that is no longer finite ends the block with a UserError; the last checkpoint stays as it is.
        """
        self.players = players
        if self.saved:
            checkpoint.load_run(self.folder / weights.CHECKPOINT, *networks_and_adams(players))
        elif self.recipe.from_:
            start_from(self.options, players)
        (self.folder / "samples").mkdir(exist_ok=True)
        write_json(self.folder / "options.json", {**vars(self.options), "out": str(self.folder), **self.facts,
                                                  "paddle": paddle.__version__})
        saved = self.saved or {"seconds": 0.0, "suspicions": {}}
        self.monitor = Monitor(self.folder, self.step, self.total_steps, self.steps_per_epoch, self.step_images,
                               saved["seconds"], self.options.visualdl,
                               certainty(self.recipe.loss, self.recipe.label_smoothing), saved["suspicions"])
        self.inputs = face_inputs(players.average.plan, range(100))  # seeds 0–99: the same hundred faces in every grid
        self.reals = RealFaces(self.reader)
        if not self.reals.enough:
            print(f"no scores: {len(self.reals.held_out)} faces held out of training are too few; {MIN_HELD_OUT} are enough "
                  "(pretreat.py --holdout)")
        self.saved_step = self.step
        batches = self.reader.batches(self.step * self.recipe.d_steps)
        with closing(self.monitor), closing(batches), stop_signals(patient=ranks.LAUNCHED) as self.signals:
            if self.step == 0:
                figures.save_picture(self.folder / "reals.png", figures.grid(self.reals.shown, columns=10))
                self.draw(keep=True)
            try:
                yield batches
            except FloatingPointError as error:
                raise UserError(f"training diverged and was stopped: {error} is no longer a finite number. The last good "
                                f"checkpoint, if one was written, is kept in {self.folder}. Start again with --fresh and a "
                                "smaller --lr, or another --seed", status=1) from None

    def after(self, step, losses):
        """Does what is due after a `step` (counted from 0), whose `losses` are what Trainer.step returned.

        A status line every LOG_EVERY steps; samples, scores and a checkpoint when their --…-every is due; all of them at the end
        of the run, and all but the scores when it is stopped. A checkpoint comes with the scores, too, so that best.safetensors
        has one beside it, and at an epoch's end if the last is LOG_EVERY steps old.
        """
        self.monitor.record(*losses)
        self.step = step + 1
        options, done = self.options, self.step == self.total_steps
        self.stop_signal = ranks.agreed_signal(self.signals, self.step)
        last = done or self.stop_signal
        logging = self.step % LOG_EVERY == 0
        # No scores when the run is stopped: they take seconds. All ranks must decide alike: a status line averages over them.
        scoring = self.reals.enough and not self.stop_signal and (due(self.step, EARLY_SCORES, options.eval_every) or done)
        sampling = due(self.step, EARLY_SAMPLES, options.sample_every) or last
        # Epochs shorter than LOG_EVERY steps do not each write a checkpoint.
        epoch_ended = self.step % self.steps_per_epoch == 0 and self.step - self.saved_step >= LOG_EVERY
        with self.monitor.aside():
            scores = self.score() if scoring else {}
        if logging or scoring or last:
            self.monitor.log(scores, self.reals)
        if logging or sampling:
            self.draw(keep=sampling)
        if self.step % options.save_every == 0 or scoring or epoch_ended or last:
            self.save(scores)

    def end(self):
        """Says what comes next. Raises UserError, with the signal's exit status, when the run was stopped."""
        if self.stop_signal:
            how = f"--out {self.folder} instead of --fresh" if self.options.fresh else "the same command"
            raise UserError(f"stopped and saved in {self.folder}; {how} resumes it", status=128 + self.stop_signal)
        print(f"done: {self.folder}/samples shows how the faces grew, {self.folder}/loss.png how the training went\n"
              f"more steps: {resume_command(self.folder, 2 * self.total_steps)}\n"
              f"next: python generator.py --n 16 --weights {shlex.quote(str(weights.best_of(self.folder)))}")

    def draw(self, keep):
        """Draws the hundred sample faces: with `keep` saves them as a grid; every LOG_EVERY steps checks for mode collapse."""
        ranks.average_statistics(self.players.average)
        if ranks.RANK == 0:
            faces = draw_faces(self.players.average, self.inputs)
            if keep:
                self.monitor.samples(faces)
            if self.step and self.step % LOG_EVERY == 0:
                self.monitor.judge_variety(faces, self.reals)

    def score(self):
        """Scores of the averaged generator against held-out faces, a dict; saves it when it is the best so far."""
        ranks.average_statistics(self.players.average)
        if ranks.RANK > 0:
            return {}
        scores = metrics.quick_scores(self.players.average, self.reals.held_out)
        if scores["face_fd"] < weights.best_score(self.folder, scores["n"]):
            self.save_generator(weights.BEST, scores)
        return scores

    def save(self, scores):
        """Saves losses, averaged generator and checkpoint, which is last: a run cut off before it resumes from the one before."""
        networks, adams = networks_and_adams(self.players)
        ranks.average_statistics(*networks.values())
        self.monitor.fetch()
        if ranks.RANK == 0:
            self.monitor.save_losses()
            self.save_generator(weights.LATEST, scores)
            checkpoint.save_run(self.folder / weights.CHECKPOINT, networks, adams,
                                {**self.progress(), "options": self.facts, "suspicions": self.monitor.suspicions})
        self.saved_step = self.step

    def save_generator(self, name, scores):
        """Saves the averaged generator, its file with all that it takes to rebuild it."""
        sources = ", ".join(Path(source).name for source in self.reader.manifest["sources"])
        checkpoint.save_generator(self.folder / name, self.players.average, {
            **self.facts, **self.progress(), "scores": scores, "data": f"{len(self.reader)} faces from {sources}",
            "from_": self.start})

    def progress(self):
        """How far the run is: steps, images seen, seconds."""
        return {"step": self.step, "images_seen": self.step * self.step_images, "seconds": self.monitor.seconds()}


def total_steps(options, steps_per_epoch):
    """How many steps the run is to have when it is done, from its beginning."""
    if options.steps:
        return options.steps
    return options.epochs * steps_per_epoch if options.epochs else max(EPOCHS * steps_per_epoch, MIN_STEPS)


def due(step, early, every):
    """Whether something that happens at the `early` steps and after `every` so many is due after this step."""
    return step in early or step % every == 0


def resume_command(folder, steps, typed=None):
    """What to type to resume the run in `folder` until it has so many steps: what was `typed` (by default the command line)."""
    typed = sys.argv[1:] if typed is None else typed
    left_out = ("--steps", "--epochs", "--out") if "--fresh" in typed else ("--steps", "--epochs")
    words, rest = [], iter(typed)
    for word in rest:
        if word in left_out:
            next(rest)  # its value
        elif word != "--fresh" and word.partition("=")[0] not in left_out:
            words.append(word)
    if "--fresh" in typed:  # which makes a numbered folder
        words += ["--out", str(folder)]
    return shlex.join(["python", "train.py", *words, "--steps", str(steps)])
