"""The options of train.py with their defaults, and a run's Recipe: those that decide its weights, together with the data.

docs/recipe.md shows what each part of the default recipe brings; benchmarks/recipe.py measures it.
"""
from support.cli import Parser, UserError, number, printable
from support.cli import seed as seed_number

from dataclasses import dataclass, fields, replace

import zoo
from augment import POLICIES
from network import LOSSES, SMOOTHED, UPSAMPLINGS
from training.randomness import NOISES
from training.start import read_start

SMALL_SET = 50_000  # faces; with fewer, --augment auto augments
TINY_SET = 5_000  # faces; with fewer, D sees every picture changed, and of a trained G most layers stay as they are
EPOCHS, MIN_STEPS = 8, 1500  # a run's default length: 8 epochs, but at least 1,500 steps, after which there are faces
FROM_LR_G = 0.5  # of G's default learning rate, with --from: a trained G that moves fast loses variety
FROZEN_LR_G = 3  # of it, where most layers of G stay as they are: the others must move further
EMA_RAMPUP, FROM_EMA_RAMPUP = 0.05, 0.3  # the average's half-life, at most, as a share of the images seen
LAST_SHARE = 0.3  # of the learning rates, at a run's end; where they fall further, a fine grain comes into the faces
EARLY_SAMPLES = (50, 100, 200)  # steps, beside those of --sample-every: early on, faces change fast
EARLY_SCORES = (500, 1000, 2000)  # beside those of --eval-every
PRESETS = {
    "best": {},
    # The plain recipe of the tutorials (Radford et al. 2016): one learning rate that never falls, and samples of the generator
    # itself, not of its average.
    "classic": {"batch": 128, "flip": False, "augment": "off", "ema": 0, "up": "deconv", "vision_aided": False,
                "lr": 2e-4, "decay": 0},
}


@dataclass(frozen=True)
class Recipe:
    """What decides a run's weights, together with the data. Each field is the option of that name (train.py --help)."""

    arch: str
    channels: int
    z_dim: int
    noise: str
    up: str  # "" for networks that have no choice of it
    vision_aided: bool
    from_: str  # "" for initial weights
    freeze_d: int
    freeze_g: bool
    batch: int
    flip: bool
    augment: str  # "off", or one of augment.POLICIES
    augment_p: float
    loss: str
    label_smoothing: float
    d_steps: int
    g_steps: int
    lr_d: float
    lr_g: float
    decay: float
    beta1: float
    beta2: float
    ema: float
    seed: int


def listed(steps):
    """Numbers of steps, for people."""
    return ", ".join(map(str, steps))


def add_networks(add):
    """The options of the networks, given to the group's add_argument."""
    add("--arch", choices=zoo.ZOO, default="dcgan",
        help="a published pair of networks, with its source's --noise, --loss, --label-smoothing, --d-steps and --g-steps")
    add("--channels", type=number(int, 1, zoo.MAX_CHANNELS),
        help="width of the networks (default: 64; dcgan has 32 at 128 px, 16 at 256 px, so that its inner layers are as wide)")
    add("--z-dim", type=number(int, 1, zoo.MAX_Z_DIM), default=100, help="numbers that a face is drawn from")
    add("--up", choices=UPSAMPLINGS, default="resize",
        help="how G doubles the size: transposed convolution, or resizing and convolution; refine: like resize, with one more "
             "convolution before the picture")
    add("--vision-aided", action="store_true",
        help="D also judges what a network that knows faces sees, pretrained/vision-aid.safetensors (the default with dcgan)")
    add("--no-vision-aided", action="store_false", dest="vision_aided", help="D sees pictures alone")
    add("--from", default="", dest="from_", metavar="FILE",
        help="start from trained weights, such as celeba64 or Output/best.safetensors; the networks are theirs, and grow where "
             "the faces are larger")
    add("--freeze-d", type=number(int, 0), default=0, metavar="N", help="with --from: D's first N layers stay as they are")
    add("--freeze-g", action="store_true", default=None,
        help=f"with --from: G's convolutions stay as they are, but for the first; that one and the batch norms learn (the "
             f"default for fewer than {TINY_SET:,} faces, unless layers are untrained)")
    add("--no-freeze-g", action="store_false", dest="freeze_g", help="all of G learns")


def add_data(add):
    """The options of what the networks learn from."""
    add("--data", default="imgs", metavar="DIR", help="packed faces")
    add("--where", default="", metavar="A=1,B=-1",
        help="train on the faces with these attributes alone (pretreat.py --attributes)")
    add("--conditional", default="", metavar="A,B",
        help="learn what these attributes look like, for generator.py --attr A=1 (pretreat.py --attributes)")
    add("--batch", type=number(int, 2), default=16, help="faces a step, over all devices")
    add("--flip", action="store_true", default=True, help="mirror each face with probability 1/2 (the default)")
    add("--no-flip", action="store_false", dest="flip", help="leave them as they are")
    add("--augment", choices=("auto", "off", *POLICIES), default="auto",
        help=f"change what D sees at random; auto: shift for fewer than {SMALL_SET:,} faces, else off")
    add("--augment-p", type=number(float, 0, 1), metavar="P",
        help=f"probability that a picture is changed so (default: 0.5; 1 for fewer than {TINY_SET:,} faces)")


def add_learning(add):
    """The options of how they learn."""
    add("--preset", choices=PRESETS, default="best",
        help="classic: the plain recipe of the tutorials, " + " ".join(
            f"--no-{flag}" if value is False else f"--{flag} {value}"
            for flag, value in ((key.replace("_", "-"), value) for key, value in PRESETS["classic"].items())))
    dcgan_rates, usual_rates = zoo.ZOO["dcgan"].rates, zoo.Arch._field_defaults["rates"]
    add("--lr", type=number(float, 0), help="Adam's learning rate, of both players")
    add("--lr-d", type=number(float, 0), metavar="LR", help=f"the discriminator's (default: --lr, else {dcgan_rates[0]:g})")
    add("--lr-g", type=number(float, 0), metavar="LR",
        help=f"the generator's (default: --lr, else {dcgan_rates[1]:g}; with another --arch {usual_rates[1]:g}; with --from "
             f"{FROM_LR_G:g} times that, with --freeze-g {FROZEN_LR_G:g} times)")
    add("--decay", type=number(float, 0, 1), default=0.3, metavar="SHARE",
        help=f"in this share of the run, at its end, both learning rates fall to {LAST_SHARE:g} of themselves; 0: never")
    add("--ema", type=number(float, 0), default=10_000, metavar="IMAGES",
        help=f"half-life of the averaged generator, in images seen; at most {EMA_RAMPUP:g} of all that the run has seen, with "
             f"--from {FROM_EMA_RAMPUP:g}; 0: no average")
    add("--seed", type=seed_number, default=0, help="another seed, another run")


def add_run(add):
    """The options of the run, which do not change its weights."""
    add("--out", metavar="DIR", help="the run's folder (default: Output; with the built-in faces Output-builtin)")
    add("--fresh", action="store_true", help="start a new run, in a new numbered folder beside --out")
    add("--epochs", type=number(int, 1),
        help=f"passes over the faces, from the run's beginning (default: {EPOCHS}, or as many as {MIN_STEPS:,} steps take)")
    add("--steps", type=number(int, 1), help="steps from the run's beginning, instead of --epochs")
    add("--sample-every", type=number(int, 1), default=500, metavar="STEPS",
        help=f"steps between sample grids; others early, at {listed(EARLY_SAMPLES)}")
    add("--save-every", type=number(int, 1), default=1000, metavar="STEPS", help="steps between checkpoints")
    add("--eval-every", type=number(int, 1), default=4000, metavar="STEPS",
        help="steps between scores on held-out faces, by which the best generator is kept; others early, at "
             f"{listed(EARLY_SCORES)}")
    add("--device", choices=("auto", "cpu", "gpu"), default="auto", help="auto: a GPU where there is one")
    add("--amp", choices=("off", "auto", "bfloat16", "float16"),
        help="mixed precision; auto: bfloat16 where the device computes in it, else float16 on a GPU and float32 on a CPU "
             "(default: auto on a CPU, off on a GPU)")
    add("--visualdl", action="store_true", help="also log for VisualDL, the board that AI Studio shows")


def add_experiments(add):
    """The options that are for experiments."""
    add("--noise", choices=NOISES, default="normal", help="distribution of z: N(0, 1), uniform in [-1, 1), or in [0, 1)")
    add("--loss", choices=LOSSES, default="bce",
        help="bce: cross-entropy; softmax: the same with two outputs; minimax: bce, but G's saturates")
    add("--label-smoothing", type=number(float, 0, below=0.5), default=0.0, metavar="S",
        help="D is to give real faces a probability of 1 - S")
    add("--d-steps", type=number(int, 1), default=1, help="discriminator updates a step")
    add("--g-steps", type=number(int, 1), default=2, help="generator updates a step")
    add("--beta1", type=number(float, 0, below=1), default=0.5, help="Adam's β1")
    add("--beta2", type=number(float, 0, below=1), default=0.999, help="Adam's β2")


GROUPS = {"networks": add_networks, "data": add_data, "learning": add_learning, "run": add_run, "experiments": add_experiments}


def build_parser(description=""):
    """The parser of train.py's options, in GROUPS."""
    parser = Parser(description)
    for name, add_group in GROUPS.items():
        add_group(parser.add_argument_group(name).add_argument)
    return parser


def parse_options(description="", typed=None):
    """The options of train.py, as `typed` (by default on the command line): a namespace.

    --preset, --arch and --from change defaults; what is typed beside them counts. Raises UserError where options do not go
    together.
    """
    parser = build_parser(description)
    chosen = parser.parse_args(typed)  # once to learn the preset and the networks, and then again with their defaults
    start = read_start(chosen.from_).options if chosen.from_ else {}
    start.pop("channels", None)  # these depend on the faces, too: see settle_start
    arch = zoo.ZOO[start.get("arch", chosen.arch)]
    parser.set_defaults(**{**arch.defaults, **PRESETS[chosen.preset], **({} if arch.has_up else {"up": ""}), **start})
    options = parser.parse_args(typed)
    if options.up and not arch.has_up:
        raise UserError(f"--up does not go with --arch {options.arch}, which has layers of its own for it; leave it out, or take "
                        "--arch dcgan")
    if options.label_smoothing and options.loss not in SMOOTHED:
        raise UserError(f"--loss {options.loss} has no probabilities to smooth; add --label-smoothing 0, or take one of "
                        f"{', '.join(SMOOTHED)}")
    for player in "dg":
        if getattr(options, f"freeze_{player}") and not options.from_:
            raise UserError(f"--freeze-{player} keeps what {player.upper()} learned before; name it with --from, such as --from "
                            "celeba64")
    return options


def make_recipe(options, faces, size=64):
    """The Recipe that `options` mean for a training set of so many `faces` of `size` px; says what a small set decides."""
    values = {**vars(options)}
    if options.channels is None:
        values["channels"] = 64 * 64 // max(size, 64) if options.arch == "dcgan" else 64
    if options.freeze_g is None:
        values["freeze_g"] = bool(options.from_) and faces < TINY_SET
        if values["freeze_g"]:
            print(f"G: its first layer and its batch norms learn, and no other layer, because {faces:,} faces are few "
                  "(--no-freeze-g: all of it)")
    lr_d, lr_g = zoo.ZOO[options.arch].rates
    lr_g *= FROZEN_LR_G if values["freeze_g"] else FROM_LR_G if options.from_ else 1
    for key, rate in (("lr_d", lr_d), ("lr_g", lr_g)):
        if values[key] is None:
            values[key] = rate if options.lr is None else options.lr
    if options.augment_p is None:
        values["augment_p"] = 1.0 if faces < TINY_SET else 0.5
    if options.augment == "auto":
        values["augment"] = "shift" if faces < SMALL_SET else "off"
        if faces < SMALL_SET:
            print(f"augmentation: D sees faces shifted at random, with probability {values['augment_p']:g}, because {faces:,} "
                  "are few (--augment off turns it off)")
    return Recipe(**{field.name: values[field.name] for field in fields(Recipe)})


def defaults(**changes):
    """The default Recipe for a large training set, with these `changes`; an `arch` or a `preset` changes other defaults, too."""
    typed = []
    for name in ("arch", "preset"):
        typed += [f"--{name}", changes.pop(name)] if name in changes else []
    return replace(make_recipe(parse_options(typed=typed), SMALL_SET), **changes)


def differences(before, now, data):
    """The options in which `before` and `now` differ and that change a run's weights, as phrases for the user.

    Both are dicts of a Recipe and of DataReader.facts; `data` is the folder of the packed faces. Raises UserError where `before`
    lacks one.
    """
    phrases = []
    for key in (*(field.name for field in fields(Recipe)), "where", "conditional", "pictures", "labelled"):
        if key not in before:
            raise UserError(f"the run was saved by another version of this program (it does not say its {key}); start a new "
                            "one with --fresh")
        if before[key] == now[key]:
            continue
        if key == "pictures":
            phrases.append(f"--data ({data} holds other faces than those it was trained on)")
        elif key == "labelled":  # where other faces or attributes are named already, the labels differ anyway
            if not phrases:
                phrases.append(f"--data ({data} holds other labels than those it was trained on)")
        else:
            flag = "--" + key.rstrip("_").replace("_", "-")
            phrases.append(f"{flag} (it has {in_words(before[key])}, you ask for {in_words(now[key])})")
    return phrases


def in_words(value):
    """An option's value as the user knows it: flags are on or off."""
    return ("off", "on")[value] if isinstance(value, bool) else "none" if value == "" else printable(value)
