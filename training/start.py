"""How a run starts from trained weights instead of random ones: train.py --from, --freeze-d and --freeze-g."""
from support.cli import UserError

from itertools import takewhile
from types import SimpleNamespace

import paddle.nn as nn

from network import Discriminator
from scoring.facefeatures import AID, load_features
from training import checkpoint, weights

GENERATOR_OPTIONS = ("arch", "channels", "z_dim", "noise", "up", "conditional")
DISCRIMINATOR_OPTIONS = ("arch", "channels", "conditional", "loss", "vision_aided")


def discriminator_beside(path):
    """The file of the discriminator that was trained with the pretrained generator `path`."""
    return path.with_name(f"{path.stem}-discriminator.safetensors")


def read_start(name):
    """What --from names: its `path`, `facts` (see checkpoint.GeneratorFacts), and the `options` that its networks need. `beside`
    is the file of its discriminator, `judge` the options that this one was built with; both are None where there is none.

    The discriminator of pretrained weights NAME.safetensors is in NAME-discriminator.safetensors, that of a run's in its
    checkpoint. Raises UserError where no generator has this name.
    """
    path = weights.weights_path(name)
    facts = checkpoint.read_generator_facts(path)
    options = {**facts, "conditional": ",".join(facts["labels"])}
    options = {key: options[key] for key in GENERATOR_OPTIONS}
    beside = next((file for file in (discriminator_beside(path), path.with_name(weights.CHECKPOINT)) if file.exists()), None)
    judge = None
    if beside:
        judge = checkpoint.read_facts(beside, "move it away, and D starts untrained")["options"]
        judge = {**judge, "conditional": ",".join(judge["labels"])}
        options = {**options, "loss": judge["loss"], "vision_aided": judge["vision_aided"]}
    return SimpleNamespace(path=path, facts=facts, options=options, beside=beside, judge=judge)


def grown(options, times):
    """Options of networks, changed for pictures `times` as large, so that the layers inside are the same: fewer channels. None
    where there are no such networks."""
    if times != 1 and (options["arch"] != "dcgan" or not times.is_integer() or options["channels"] % times):
        return None
    return {**options, "channels": round(options["channels"] / times)}


def why_untrained(start, options, times):
    """Why D cannot start with what the discriminator beside the weights learned, as a phrase; "" where it can."""
    if not start.beside:
        return f"none is beside {start.path}"
    judge = grown(start.judge, times)
    changed = [key for key in DISCRIMINATOR_OPTIONS if not judge or judge[key] != getattr(options, key)]
    return f"{start.beside} has another --{changed[0].replace('_', '-')}" if changed else ""


def settle_start(options, size):
    """Gives `options` the --channels that the weights of --from need for faces of `size` px, unless they were typed, and
    --no-freeze-g where layers of G or D are untrained. Raises UserError where the weights do not go with the options, or with
    these faces."""
    start = read_start(options.from_)
    drawn = start.facts["size"]
    needed = grown(start.options, size / drawn)
    if not needed:
        raise UserError(f"--from {options.from_} draws {drawn} px, but the packed faces have {size}; pack them "
                        f"again: add --size {drawn} --out imgs{drawn} to what you typed behind pretreat.py, then train.py --data "
                        f"imgs{drawn}")
    if options.channels is None:
        options.channels = needed["channels"]
    if (needed["up"], options.up) == ("resize", "refine"):
        needed["up"] = "refine"  # all layers but the last are the same
    for key in GENERATOR_OPTIONS:
        if getattr(options, key) != needed[key]:
            raise UserError(f"--{key.replace('_', '-')} {getattr(options, key) or 'none'} does not go with --from "
                            f"{options.from_}, whose networks need {needed[key] or 'none'}; leave it out")
    new = size != drawn or options.up != start.options["up"]
    if new and options.freeze_g:
        raise UserError("--freeze-g keeps what G learned before, but its layers next to the picture are new; leave it out")
    why = "its first layers are new where networks grow" if size != drawn else why_untrained(start, options, 1)
    if options.freeze_d and why:
        raise UserError(f"--freeze-d keeps what D learned before, but {why}; leave it out")
    if options.freeze_g is None and (new or why):
        options.freeze_g = False


def describe_start(name):
    """What --from names, for the run's metadata: one phrase."""
    return f"{name} ({weights.describe_generator(read_start(name).facts)})"


def start_from(options, players):
    """Gives the players the weights that `options`.from_ names: the generator's to G and to its average, and to D those of the
    discriminator beside them. Says so where networks have grown, and where D keeps its random weights, and why."""
    start, size = read_start(options.from_), players.average.size
    generator, _ = checkpoint.load_generator(start.path)
    for network in (players.G.network, players.average):
        take_over(network, generator)
    if size != generator.size:
        print(f"note: the networks grow from {generator.size} to {size} px; their layers next to the picture start untrained")
    elif options.up != start.options["up"]:
        print(f"note: the generator's layers next to the picture start untrained, because they are those of --up {options.up}")
    why = why_untrained(start, options, size / generator.size)
    if why:
        print(f"note: the discriminator starts untrained, because {why}")
        return
    aid = load_features(AID) if options.vision_aided else None
    take_over(players.D.network, checkpoint.load_discriminator(start.beside, generator.size, aid), backwards=True)


def take_over(network, trained, backwards=False):
    """Gives a network the weights of a trained one, layer by layer, as far as they have the same shapes: all of them, unless
    the network has grown. The layers of two generators are alike from z on, those of two discriminators from the last one
    `backwards`."""
    order = reversed if backwards else iter
    pairs = zip(*(order(list(each.state_dict().values())) for each in (network, trained)))
    for weight, learned in takewhile(lambda pair: pair[0].shape == pair[1].shape, pairs):
        weight.set_value(learned)


def freeze_generator(generator):
    """Keeps the weights of G's convolutions and dense layers as they are, but for the first layer's, and lets its batch norms
    learn, and biases (after Noguchi & Harada 2019): from few photos G learns which of its faces to draw, not how to draw."""
    _, *others = (weight for weight in generator.parameters() if weight.ndim > 1)
    for weight in others:
        weight.stop_gradient = True


def freeze_discriminator(discriminator, count):
    """Keeps the first `count` convolutions or dense layers of D, with their batch norms, as they are (Mo et al. 2020). Raises
    UserError where it has no more than these."""
    of_pictures = next(layer for layer in discriminator.sublayers(include_self=True) if isinstance(layer, Discriminator))
    number = sum(isinstance(layer, (nn.Conv2D, nn.Linear)) for layer in of_pictures)
    if count >= number:
        raise UserError(f"--freeze-d {count}: D has {number} layers, of which at least one must learn; name a smaller number")
    for layer in of_pictures:
        count -= isinstance(layer, (nn.Conv2D, nn.Linear))
        if count < 0:
            return
        for weight in layer.parameters():
            weight.stop_gradient = True
