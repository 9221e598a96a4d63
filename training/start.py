"""How a run starts from trained weights instead of random ones: train.py --from, and --freeze-d."""
from support.cli import UserError

from itertools import takewhile
from types import SimpleNamespace

import paddle.nn as nn

from network import Discriminator
from scoring.facefeatures import AID, load_features
from training import checkpoint, weights

GENERATOR_OPTIONS = ("arch", "channels", "z_dim", "noise", "up", "conditional")
DISCRIMINATOR_OPTIONS = ("arch", "channels", "loss", "vision_aided", "conditional")


def discriminator_beside(path):
    """The file of the discriminator that was trained with the pretrained generator `path`."""
    return path.with_name(f"{path.stem}-discriminator.safetensors")


def read_start(name):
    """What --from names: its `path`, `facts` (see checkpoint.GeneratorFacts), the `options` that its networks need, and `beside`,
    the file of its discriminator, or None. Raises UserError where no generator has this name.

    The discriminator of pretrained weights NAME.safetensors is in NAME-discriminator.safetensors, that of a run's in its
    checkpoint.
    """
    path = weights.weights_path(name)
    facts = checkpoint.read_generator_facts(path)
    options = {**facts, "conditional": ",".join(facts["labels"])}
    options = {key: options[key] for key in GENERATOR_OPTIONS}
    beside = next((file for file in (discriminator_beside(path), path.with_name(weights.CHECKPOINT)) if file.exists()), None)
    if beside:
        trained = checkpoint.read_facts(beside)["options"]
        options = {**options, "loss": trained["loss"], "vision_aided": trained["vision_aided"]}
    return SimpleNamespace(path=path, facts=facts, options=options, beside=beside)


def grown(start, size):
    """The options that networks for faces of `size` px need so that their inner layers are those that --from names: half as many
    channels for each doubling of the size. None where no network of that size has such layers."""
    options, times = start.options, size / start.facts["size"]
    if times != 1 and (options["arch"] != "dcgan" or not times.is_integer() or options["channels"] % times):
        return None
    return {**options, "channels": round(options["channels"] / times)}


def check_start(options, size):
    """Raises UserError where weights that --from names do not go with the typed options, or with faces of `size` px."""
    start = read_start(options.from_)
    needed, drawn = grown(start, size), start.facts["size"]
    if not needed:
        raise UserError(f"--from {options.from_} draws {drawn} px, but the packed faces have {size}; pack them again: "
                        f"python pretreat.py --size {drawn}")
    if size != drawn and (options.channels != needed["channels"] or options.freeze_d):
        raise UserError(f"--from {options.from_} draws {drawn} px, but the packed faces have {size}; for its networks to grow to "
                        f"that, add --channels {needed['channels']}, and no --freeze-d")
    for key in GENERATOR_OPTIONS:
        if getattr(options, key) != needed[key]:
            raise UserError(f"--{key.replace('_', '-')} {getattr(options, key) or 'none'} does not go with --from "
                            f"{options.from_}, whose generator has {needed[key] or 'none'}; leave it out")


def describe_start(name):
    """What --from names, for the run's metadata: one phrase."""
    return f"{name} ({weights.describe_generator(read_start(name).facts)})"


def start_from(options, players):
    """Gives the players the weights that `options`.from_ names: the generator's to G and to its average, and to D those of the
    discriminator beside them. Says so where networks have grown, and where D keeps its random weights, because there is none or
    options ask for another."""
    start, size = read_start(options.from_), players.average.size
    needed = grown(start, size)
    generator, _ = checkpoint.load_generator(start.path)
    for network in (players.G.network, players.average):
        take_over(network, generator)
    if size != generator.size:
        print(f"note: the networks grow from {generator.size} to {size} px; their layers next to the picture start untrained")
    changed = [key for key in DISCRIMINATOR_OPTIONS if needed.get(key) != getattr(options, key)]
    if start.beside and not changed:
        trained = checkpoint.load_discriminator(start.beside, generator.size, load_features(AID))
        take_over(players.D.network, trained, backwards=True)
    else:
        why = f"{start.beside} has another --{changed[0].replace('_', '-')}" if start.beside else f"none is beside {start.path}"
        print(f"note: the discriminator starts untrained, because {why}")


def take_over(network, trained, backwards=False):
    """Gives a network the weights of a trained one, layer by layer, as far as they have the same shapes: all of them, unless
    the network has grown. The layers of two generators are alike from z on, those of two discriminators from the last one
    `backwards`."""
    order = reversed if backwards else iter
    pairs = zip(*(order(list(each.state_dict().values())) for each in (network, trained)))
    for weight, learned in takewhile(lambda pair: pair[0].shape == pair[1].shape, pairs):
        weight.set_value(learned)


def freeze(discriminator, count):
    """Keeps the first `count` convolutions or dense layers of D, with their batch norms, as they are (Mo et al. 2020)."""
    of_pictures = next(layer for layer in discriminator.sublayers(include_self=True) if isinstance(layer, Discriminator))
    for layer in of_pictures:
        count -= isinstance(layer, (nn.Conv2D, nn.Linear))
        if count < 0:
            return
        for weight in layer.parameters():
            weight.stop_gradient = True
