"""How a run starts from trained weights instead of random ones: train.py --from, and --freeze-d."""
from support.cli import UserError

from types import SimpleNamespace

import paddle.nn as nn

from network import Discriminator
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


def check_start(options, size):
    """Raises UserError where weights that --from names do not go with the typed options, or with faces of `size` px."""
    start = read_start(options.from_)
    for key in GENERATOR_OPTIONS:
        if getattr(options, key) != start.options[key]:
            raise UserError(f"--{key.replace('_', '-')} {getattr(options, key) or 'none'} does not go with --from "
                            f"{options.from_}, whose generator has {start.options[key] or 'none'}; leave it out")
    if start.facts["size"] != size:
        raise UserError(f"--from {options.from_} draws {start.facts['size']} px, but the packed faces have {size}; pack them "
                        f"again: python pretreat.py --size {start.facts['size']}")


def describe_start(name):
    """What --from names, for the run's metadata: one phrase."""
    return f"{name} ({weights.describe_generator(read_start(name).facts)})"


def start_from(options, players):
    """Gives the players the weights that `options`.from_ names: the generator's to G and to its average, and to D those of the
    discriminator beside them. Says so where D keeps its random ones, because there is none or options ask for another."""
    start = read_start(options.from_)
    shapes = checkpoint.network_shapes("", players.average)
    arrays = checkpoint.read_tensors(start.path, {name[1:]: shape for name, shape in shapes.items()})
    for generator in (players.G.network, players.average):
        generator.set_state_dict(arrays)
    changed = [key for key in DISCRIMINATOR_OPTIONS if start.options.get(key) != getattr(options, key)]
    if start.beside and not changed:
        arrays = checkpoint.read_tensors(start.beside, checkpoint.network_shapes("discriminator", players.D.network))
        checkpoint.set_network("discriminator", players.D.network, arrays)
    else:
        why = f"{start.beside} has another --{changed[0].replace('_', '-')}" if start.beside else f"none is beside {start.path}"
        print(f"note: the discriminator starts untrained, because {why}")


def freeze(discriminator, count):
    """Keeps the first `count` convolutions or dense layers of D, with their batch norms, as they are (Mo et al. 2020)."""
    of_pictures = next(layer for layer in discriminator.sublayers(include_self=True) if isinstance(layer, Discriminator))
    for layer in of_pictures:
        count -= isinstance(layer, (nn.Conv2D, nn.Linear))
        if count < 0:
            return
        for weight in layer.parameters():
            weight.stop_gradient = True
