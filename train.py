"""Trains a DCGAN on the faces that pretreat.py packed.

    python train.py                             # imgs/ → Output/, 8 epochs or 2,500 steps, whichever is more
    python train.py --steps 5000                # that many steps instead; resumes where the run ended
    python train.py --fresh --lr 1e-4           # a new run, in Output-2; the old one stays
    python train.py --out Output-2 --lr 1e-4    # resumes that one
    python -m paddle.distributed.launch --devices 0,1 train.py    # on two GPUs

Stopped by Ctrl-C or cut off, the same command resumes the run.
"""
from support.cli import UserError, printable, run_command, stop_signals

import math
import shlex
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import paddle
import paddle.nn.functional as F

import recipe
import zoo
from dataReader import DataReader
from network import choose_losses, draw_faces, gradient_penalty
from scoring import metrics
from support import figures
from support.device import choose_device, choose_precision
from support.files import claim, numbered_folder, sweep, write_json
from training import checkpoint, ranks
from training.monitor import LOG_EVERY, Monitor, RealFaces
from training.players import StepDraws, build_players, frozen, networks_and_adams, set_rates, update, update_average
from training.randomness import face_inputs, seed_layers

PENALTY_EVERY = 16  # D's updates between two gradient penalties (Karras et al. 2020, StyleGAN2: "lazy regularization")
FEW_STEPS = 500
FEWEST_HELD_OUT = 100  # scores against fewer faces are too noisy to say which generator is best


def train_step(step, batches, players, options):
    """One step: D's updates, then G's (Goodfellow et al. 2014, algorithm 1).

    Returns D's loss, G's loss, and D's mean probability of "real" on reals and on fakes, each of its player's last update,
    on this rank's share of the batch. A conditional run draws the fakes with the labels of the real faces.
    """
    G, D = players.G.parallel, players.D.parallel
    discriminator_loss, generator_loss = choose_losses(options.loss, options.label_smoothing)

    real_batches = [next(batches) for _ in range(options.d_steps)]
    drawn = StepDraws(step, options, real_batches[0][0].shape)

    for i, (reals, labels) in enumerate(real_batches, step * options.d_steps):
        known = () if labels is None else (labels,)
        z = drawn.z("z for D", i, labels)
        seed_layers(options.seed, f"layers in D's update, rank {ranks.RANK}", i)
        reals = drawn.augmented(reals, "changes of reals", i)  # outside of autocast, so that the gradient penalty gets float32
        with players.autocast():
            with paddle.no_grad():
                fakes = drawn.augmented(G(z), "changes of fakes for D", i)
            real_logits, fake_logits = D(reals, *known), D(fakes, *known)
        d_loss = discriminator_loss(real_logits, fake_logits)
        update(players.D, d_loss)
        if options.r1 and i % PENALTY_EVERY == 0:
            penalty = gradient_penalty(players.D.network, reals, *known)  # the parallel one takes one backward for each forward
            update(players.D, options.r1 / 2 * PENALTY_EVERY * penalty, shared=False)

    D = players.D.network  # it takes no gradients now, so there is nothing to average over the ranks
    with frozen(D):
        for i in range(step * options.g_steps, (step + 1) * options.g_steps):
            z = drawn.z("z for G", i, labels)
            seed_layers(options.seed, f"layers in G's update, rank {ranks.RANK}", i)
            with players.autocast():
                logits = D(drawn.augmented(G(z), "changes of fakes for G", i), *known)
            g_loss = generator_loss(logits)
            update(players.G, g_loss)

    return d_loss, g_loss, F.sigmoid(real_logits).mean(), F.sigmoid(fake_logits).mean()


def saved_facts(folder, options):
    """What the run in `folder` saved last, as `save` below wrote it; None where nothing was saved yet.

    Raises UserError when its options differ from `options` in a way that would change the weights.
    """
    facts = checkpoint.read_facts(folder / "checkpoint.safetensors")
    if facts is None:
        return None
    differing = recipe.differences(facts["options"], options)
    if differing:
        raise UserError(f"the run in {folder} was started with other options: {'; '.join(differing)}. Type them as they were "
                        "to go on with it, or add --fresh to start a new run beside it")
    return facts


def steps_an_epoch(reader, options):
    """Steps in which D sees every face (nearly: see DataReader.batches) at least once."""
    return math.ceil(reader.batches_per_epoch / options.d_steps)


def train(options, reader, players, folder, facts, total_steps):
    """The training loop, from where the run that saved `facts` is, until `total_steps` are done.

    Returns the signal that cut it short, or None.
    """
    steps_per_epoch = steps_an_epoch(reader, options)
    step_images = reader.batch_size * options.d_steps
    start_step = facts["step"]
    monitor = Monitor(folder, start_step, total_steps, steps_per_epoch, step_images, facts["seconds"], options.visualdl,
                      sure=0.95 * (1 - options.label_smoothing), suspicions=facts.get("suspicions"))
    batches = reader.batches(start_step * options.d_steps)
    z = face_inputs(players.average.plan, range(100))  # seeds 0–99: the same hundred faces in every grid
    reals = RealFaces(reader)
    evaluates = len(reals.held_out) >= FEWEST_HELD_OUT
    if not evaluates:
        print(f"no scores: {len(reals.held_out)} faces held out of training are too few; {FEWEST_HELD_OUT} are enough "
              "(pretreat.py --holdout)")

    def look(step, keep):
        ranks.average_statistics(players.average)
        if ranks.RANK == 0:
            faces = draw_faces(players.average, z)
            if keep:
                monitor.samples(faces)
            if step and step % LOG_EVERY == 0:
                monitor.judge_variety(faces, reals)

    def progress(step):
        return {"step": step, "images_seen": step * step_images, "seconds": monitor.seconds(), "options": vars(options)}

    def save_generator(name, step, scores):
        checkpoint.save_generator(folder / name, players.average, {
            **vars(options), **progress(step), "size": reader.size, "scores": scores,
            "data": f"{len(reader)} faces from {', '.join(Path(source).name for source in reader.manifest['sources'])}"})

    def evaluate(step):
        ranks.average_statistics(players.average)
        if ranks.RANK > 0:
            return {}
        scores = metrics.quick_scores(players.average, reals.held_out)
        if scores["swd"] < checkpoint.best_swd(folder, scores["n"]):
            save_generator(checkpoint.BEST, step, scores)
        return scores

    def save(step, scores):
        networks, adams = networks_and_adams(players)
        ranks.average_statistics(*networks.values())
        monitor.fetch()
        if ranks.RANK > 0:
            return
        monitor.save_losses()
        save_generator(checkpoint.LATEST, step, scores)
        # Last, because it says how far the run is: when the process dies before this line, the step counts as not done.
        checkpoint.save_run(folder / "checkpoint.safetensors", networks, adams,
                            {**progress(step), "suspicions": monitor.suspicions})

    with closing(monitor), closing(batches), stop_signals(patient=ranks.LAUNCHED) as signals:
        if start_step == 0:
            (folder / checkpoint.BEST).unlink(missing_ok=True)  # of a run whose checkpoint is gone
            figures.save_picture(folder / "reals.png", figures.grid(reals.shown, columns=10))
            look(0, keep=True)
        saved_step = start_step
        for step in range(start_step + 1, total_steps + 1):  # counted from 1: the steps done once this one is
            set_rates(players, step - 1, options)
            monitor.record(*train_step(step - 1, batches, players, options))
            update_average(players.average, players.G.network, step * step_images, step_images, options.ema)

            stopping = ranks.agreed_signal(signals, step)
            last = step == total_steps or stopping
            reporting = step % LOG_EVERY == 0
            # Who stops is in a hurry. All ranks decide alike, for a status line is a meeting of theirs.
            evaluating = evaluates and not stopping and (
                recipe.due(step, recipe.EARLY_SCORES, options.eval_every) or step == total_steps)
            sampling = recipe.due(step, recipe.EARLY_SAMPLES, options.sample_every) or last
            with monitor.aside():
                scores = evaluate(step) if evaluating else {}
            if reporting or evaluating or last:
                monitor.log(scores, reals)
            if reporting or sampling:
                look(step, keep=sampling)
            # A small set has an epoch every few steps: the ends of several share a checkpoint.
            epoch_ended = step % steps_per_epoch == 0 and step - saved_step >= LOG_EVERY
            if step % options.save_every == 0 or epoch_ended or last:
                save(step, scores)
                saved_step = step
            if stopping:
                return stopping
    return None


def run(options, reader, folder, precision):
    """Starts the run in `folder` or resumes it, and says so."""
    ranks.require_same({**{key: value for key, value in vars(options).items() if key not in ("data", "out")}, "amp": precision})
    ranks.copy_from_first(folder / "checkpoint.safetensors")
    facts = saved_facts(folder, options)
    start_step = facts["step"] if facts else 0
    total_steps = recipe.total_steps(options, steps_an_epoch(reader, options))
    if start_step >= total_steps:
        print(f"nothing left to do: the run in {folder} has {start_step} steps already, and {total_steps} are asked for; for "
              f"more type: {recipe.command(folder, 2 * start_step)}")
        return
    options.precision = precision
    if facts and facts["options"].get("precision", precision) != precision:
        print(f"note: the run computed in {printable(facts['options']['precision'])} so far, now it goes on in {precision}")
    print(f"run: {folder}, " + (f"going on from step {start_step} of {total_steps}" if facts else f"{total_steps} steps"))
    if options.fresh:
        print(f"to go on with it later, type --out {folder} instead of --fresh")
    if total_steps < FEW_STEPS:
        print(f"note: {total_steps} steps are few; faces begin to show after about {FEW_STEPS}: --steps {FEW_STEPS}")

    players = build_players(reader.size, options, precision)
    if facts:
        checkpoint.load_run(folder / "checkpoint.safetensors", *networks_and_adams(players))
    (folder / "samples").mkdir(exist_ok=True)
    write_json(folder / "options.json", {**vars(options), "size": reader.size, "paddle": paddle.__version__})
    try:
        stop = train(options, reader, players, folder, facts or {"step": 0, "seconds": 0.0}, total_steps)
    except FloatingPointError as error:
        raise UserError(f"training went out of hand and was stopped: {error} is no longer a finite number. The last good "
                        f"checkpoint, if one was written, is kept in {folder}. Start again with --fresh and a smaller "
                        "--lr, or another --seed", status=1) from None
    if stop:
        command = f"--out {folder} instead of --fresh" if options.fresh else "the same command"
        raise UserError(f"stopped and saved in {folder}; {command} goes on from there", status=128 + stop)
    print(f"done: {folder}/samples shows how the faces grew, {folder}/loss.png how the training went\n"
          f"more steps make better faces: {recipe.command(folder, 2 * total_steps)}\n"
          f"next: python generator.py --n 16 --weights {shlex.quote(str(checkpoint.best_of(folder)))}")


@contextmanager
def own_folder(options):
    """The run's folder, claimed by rank 0; another rank gets an empty one of its own, which goes when it is done."""
    if ranks.RANK > 0:
        with TemporaryDirectory() as folder:
            yield Path(folder)
        return
    folder = numbered_folder(options.out) if options.fresh else Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    with claim(folder):
        sweep(folder, folder / "samples")
        yield folder


def main():
    """The command: reads its options, takes the run's folder, and trains."""
    options = recipe.parse_options(__doc__)
    reader = DataReader(options.data, options.batch, flip=options.flip, seed=options.seed, rank=ranks.RANK, ranks=ranks.COUNT,
                        where=options.where, conditional=options.conditional)
    zoo.check_size(options.arch, reader.size)
    options.pictures, options.labelled, options.labels = reader.fingerprint(), reader.label_digest(), reader.label_sample()
    options.where, options.conditional = reader.where, ",".join(reader.conditional)  # however they were typed
    which = f" with {options.where}" if options.where else ""
    print(f"data: {len(reader)} faces{which} of {reader.size} px in {options.data}, "
          f"{reader.batches_per_epoch} batches of {reader.batch_size} an epoch")
    recipe.settle_folder(options, reader.manifest["sources"])
    recipe.settle_augmentation(options, len(reader))
    device = choose_device(options.device, aloud=True)
    precision = choose_precision(options.amp, device)
    if options.spectral_norm and device == "gpu" and precision != "float32":
        raise UserError("--spectral-norm: Paddle computes it in float32 alone; leave --amp off")
    if options.r1 and ranks.COUNT > 1 and device == "gpu" and not options.spectral_norm:
        raise UserError("--r1: Paddle's synchronised batch normalisation has no second derivative; on several GPUs use it with "
                        "--spectral-norm")
    ranks.join()
    with own_folder(options) as folder, ranks.explained():
        run(options, reader, folder, precision)


if __name__ == "__main__":
    run_command(main)
