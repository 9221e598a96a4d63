"""Every knob of a training run, its default, and the presets. benchmarks/recipe.py measures what each of them brings."""
from support.cli import Parser, UserError, number, printable, seed

import shlex
import sys

import zoo
from augment import POLICIES
from intake.sources import BUILTIN
from network import LOSSES, SMOOTHED, UPSAMPLINGS
from training.randomness import NOISES

SMALL_SET = 50_000  # faces; with fewer, --augment auto augments
# how long a run is by default: so many epochs, but not fewer steps, for a small set has short epochs
EPOCHS, LEAST_STEPS = 8, 2500
EARLY_SAMPLES = (50, 100, 200)  # steps, beside those of --sample-every: early on, faces change fast
EARLY_SCORES = (500, 1000, 2000)  # beside those of --eval-every

# The plain recipe of the tutorials (Radford et al. 2016): one learning rate that never falls, and the samples are drawn by the
# generator as it is at the end.
CLASSIC = {"batch": 128, "flip": False, "augment": "off", "ema": 0, "up": "deconv", "lr": 2e-4, "halve_after": 0}
PRESETS = {"best": {}, "classic": CLASSIC}

# A run can only be gone on with when these are as they were.
MATTERS = ("pictures", "where", "conditional", "labelled", "batch", "arch", "channels", "z_dim", "noise", "up", "spectral_norm",
           "loss", "label_smoothing", "r1", "augment", "augment_p", "flip", "ema", "lr_d", "lr_g", "halve_after", "beta1",
           "beta2", "seed", "d_steps", "g_steps")
# What was in force in runs that were saved before there were these options.
OLDER = {"where": "", "conditional": "", "labelled": "", "labels": {}, "arch": "dcgan", "noise": "normal", "up": "deconv",
         "spectral_norm": False, "loss": "bce", "label_smoothing": 0, "r1": 0, "augment": "off", "augment_p": 1.0, "flip": False,
         "ema": 10_000, "halve_after": 0}


def parse_options(description, typed=None):
    """The options of train.py, as `typed` (by default on the command line).

    --preset and --arch change defaults, so what is typed beside them counts.
    """
    parser = Parser(description)
    add = parser.add_argument
    add("--preset", choices=PRESETS, default="best",
        help="classic: the plain recipe of the tutorials, batch 128, --up deconv, --lr 2e-4, without --flip, --augment, --ema "
             "and --halve-after (default: best)")
    add("--data", default="imgs", metavar="DIR", help="packed faces (default: imgs)")
    add("--out", metavar="DIR", help="the run's folder (default: Output; with the built-in faces Output-builtin)")
    add("--fresh", action="store_true", help="start a new run, in a new numbered folder beside --out")
    add("--epochs", type=number(int, 1),
        help=f"passes over the faces, from the run's beginning (default: {EPOCHS}, or as many as {LEAST_STEPS:,} steps take)")
    add("--steps", type=number(int, 1), help="steps from the run's beginning, instead of --epochs")
    add("--seed", type=seed, default=0, help="another seed, another run (default: 0)")

    # the networks
    add("--arch", choices=zoo.NAMES, default="dcgan",
        help="dcgan, or another published pair of networks, which brings its source's --noise, --loss, --label-smoothing, "
             "--d-steps and --g-steps (default: dcgan)")
    add("--channels", type=number(int, 1), default=64, help="width of the networks (default: 64)")
    add("--z-dim", type=number(int, 1), default=100, help="numbers that a face is drawn from (default: 100)")
    add("--noise", choices=NOISES, default="normal",
        help="its distribution: N(0, 1), uniform in [-1, 1), or in [0, 1) (default: normal)")
    add("--up", choices=UPSAMPLINGS, default="resize",
        help="how G doubles the size: transposed convolution, or resizing and convolution (default: resize)")
    add("--spectral-norm", action="store_true", help="spectral normalisation of D's weights in place of batch norm")

    # what they learn from
    add("--where", default="", metavar="A=1,B=-1",
        help="train on the faces with these attributes alone (pretreat.py --attributes)")
    add("--conditional", default="", metavar="A,B",
        help="learn what these attributes look like, for generator.py --attr A=1 (pretreat.py --attributes)")
    add("--batch", type=number(int, 2), default=16, help="faces a step, over all devices (default: 16)")
    add("--flip", action="store_true", default=True, help="mirror each face with probability 1/2 (the default)")
    add("--no-flip", action="store_false", dest="flip", help="leave them as they are")
    add("--augment", choices=("auto", "off", *POLICIES), default="auto",
        help=f"change what D sees at random; auto: shift for fewer than {SMALL_SET:,} faces, else off (default: auto)")
    add("--augment-p", type=number(float, 0, 1), default=0.5, metavar="P",
        help="probability that a picture is changed so (default: 0.5)")
    add("--loss", choices=LOSSES, default="bce",
        help="bce: cross-entropy; softmax: the same with two outputs; minimax: bce, but G's saturates (default: bce)")
    add("--label-smoothing", type=number(float, 0, below=0.5), default=0.0, metavar="S",
        help="D is to give real faces a probability of 1 - S (default: 0)")
    add("--r1", type=number(float, 0), default=0.0, metavar="GAMMA",
        help="weight of the gradient penalty on real faces (default: 0, none)")

    # how they learn
    add("--d-steps", type=number(int, 1), default=1, help="discriminator updates a step (default: 1)")
    add("--g-steps", type=number(int, 1), default=2, help="generator updates a step (default: 2)")
    add("--lr", type=number(float, 0), help="Adam's learning rate, of both players (default: the two below)")
    add("--lr-d", type=number(float, 0), metavar="LR", help="the discriminator's (default: 2e-4)")
    add("--lr-g", type=number(float, 0), metavar="LR", help="the generator's (default: 1e-4; with another --arch 2e-4)")
    add("--halve-after", type=number(int, 0), default=7500, metavar="STEPS",
        help="halve both learning rates after so many steps; 0: never (default: 7500)")
    add("--beta1", type=number(float, 0, below=1), default=0.5, help="Adam's β1 (default: 0.5)")
    add("--beta2", type=number(float, 0, below=1), default=0.999, help="Adam's β2 (default: 0.999)")
    add("--ema", type=number(float, 0), default=10_000, metavar="IMAGES",
        help="half-life of the averaged generator, in images seen; 0: no average (default: 10000)")

    # the run
    add("--sample-every", type=number(int, 1), default=500, metavar="STEPS",
        help=f"steps between sample grids; others early, at {', '.join(map(str, EARLY_SAMPLES))} (default: 500)")
    add("--save-every", type=number(int, 1), default=1000, metavar="STEPS",
        help="steps between checkpoints (default: 1000)")
    add("--eval-every", type=number(int, 1), default=4000, metavar="STEPS",
        help="steps between scores on held-out faces, by which the best generator is kept; others early, at "
             f"{', '.join(map(str, EARLY_SCORES))} (default: 4000)")
    add("--device", choices=("auto", "cpu", "gpu"), default="auto", help="(default: auto, a GPU where there is one)")
    add("--amp", choices=("off", "auto", "bfloat16", "float16"),
        help="mixed precision; auto: bfloat16 where the device computes in it, else float16 on a GPU and float32 on a CPU "
             "(default: auto on a CPU, off on a GPU)")
    add("--visualdl", action="store_true", help="also log for VisualDL, the board that AI Studio shows")

    chosen = parser.parse_args(typed)
    parser.set_defaults(**PRESETS[chosen.preset])
    if chosen.arch != "dcgan":
        parser.set_defaults(up="", **zoo.ZOO[chosen.arch].habits)
    options = parser.parse_args(typed)
    if options.arch != "dcgan" and (options.up or options.spectral_norm):
        raise UserError("--up and --spectral-norm go with --arch dcgan alone; the other networks have their own layers")
    if options.arch != "dcgan" and options.r1:
        raise UserError("--r1 goes with --arch dcgan alone; layers of the other networks have no second derivative")
    if options.label_smoothing and options.loss not in SMOOTHED:
        raise UserError(f"--loss {options.loss} knows no probabilities to smooth; add --label-smoothing 0, or take one of "
                        f"{', '.join(SMOOTHED)}")
    # Most sources of the other networks have one rate for both players.
    for key, default in (("lr_d", 2e-4), ("lr_g", 1e-4 if options.arch == "dcgan" else 2e-4)):
        if getattr(options, key) is None:
            setattr(options, key, default if options.lr is None else options.lr)
    return options


def settle_augmentation(options, faces):
    """Decides what --augment auto means for a set of so many `faces`, and says so."""
    if options.augment == "auto":
        options.augment = "shift" if faces < SMALL_SET else "off"
        if options.augment != "off":
            print(f"augmentation: D sees faces shifted at random, with probability {options.augment_p:g}, because {faces:,} "
                  "are few (--augment off turns it off)")


def settle_folder(options, sources):
    """Decides where a run without --out lives, and says so where it is not Output: `sources` are those of the data's manifest.

    A run on the built-in faces must not be in the way of one on photos, nor be what generator.py draws with.
    """
    if options.out is None:
        builtin = sources == [BUILTIN]
        options.out = "Output-builtin" if builtin else "Output"
        if builtin:
            print(f"the run lives in {options.out}, because these are the built-in faces; Output stays free for your photos")


def total_steps(options, steps_per_epoch):
    """How many steps the run is to have when it is done, from its beginning."""
    if options.steps:
        return options.steps
    return options.epochs * steps_per_epoch if options.epochs else max(EPOCHS * steps_per_epoch, LEAST_STEPS)


def due(step, early, every):
    """Whether something that happens at the `early` steps and after `every` so many is due after this step."""
    return step in early or step % every == 0


def command(folder, steps, typed=None):
    """What to type for the run in `folder` to go on until it has so many steps: what was `typed` (by default
    the command line)."""
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


def differences(before, options):
    """How `options` differ from those of a run saved `before`, where that would change the weights: phrases.

    Raises UserError where those of the run do not say.
    """
    rates = {} if before.get("lr") is None else {"lr_d": before["lr"], "lr_g": before["lr"]}
    before = {**rates, **OLDER, **before}
    missing = [key for key in MATTERS if key not in before]
    if missing:
        raise UserError(f"the run was saved by another version of this program (it does not say its {missing[0]}); start a new "
                        "one with --fresh")
    phrases = []
    for key in MATTERS:
        had, wanted = before[key], getattr(options, key)
        if had == wanted or key == "labelled" and phrases:  # other labels are no wonder where others are asked for
            continue
        if key in ("pictures", "labelled"):
            what = {"pictures": "faces", "labelled": "labels"}[key]
            phrases.append(f"--data ({options.data} holds other {what} than those it was trained on)")
        else:
            phrases.append(f"--{key.replace('_', '-')} (it has {in_words(had)}, you ask for {in_words(wanted)})")
    return phrases


def in_words(value):
    """An option's value as the user knows it: flags are on or off."""
    return ("off", "on")[value] if isinstance(value, bool) else "none" if value == "" else printable(value)
