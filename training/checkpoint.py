"""Saving and loading: one safetensors file holds a run, another a generator with all that it takes to rebuild it.

Safetensors files hold numbers and text alone; opening one from a stranger cannot run code. What such a file says is checked
before it is used: the text against a schema, the tensors' types and shapes before any memory is taken for them.
"""
from support.cli import UserError, printable

import hashlib
import json
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Literal

import numpy as np
import paddle
import paddle.nn as nn
from msgspec import Meta, Struct
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

import zoo
from network import LOSSES, UPSAMPLINGS
from support.files import replacing
from support.schema import Count, Label, Name, Number, Size, Text, checked, parsed
from training.randomness import NOISES

Channels = Annotated[int, Meta(ge=1, le=zoo.MAX_CHANNELS)]
Labels = Annotated[dict[Name, Annotated[list[Label], Meta(min_length=1, max_length=1000)]], Meta(max_length=1000)]


class GeneratorFacts(Struct):
    """What a generator's file says: how to rebuild it (see zoo.Plan), and how it was trained."""

    arch: Literal[tuple(zoo.ZOO)]
    size: Size
    z_dim: Annotated[int, Meta(ge=1, le=zoo.MAX_Z_DIM)]
    channels: Channels
    up: Literal[(*UPSAMPLINGS, "")]
    noise: Literal[tuple(NOISES)]
    labels: Labels
    step: Count
    images_seen: Count
    seed: Count
    data: Text
    pictures: Text
    where: Text
    scores: Annotated[dict[str, Number], Meta(max_length=100)]
    from_: Text = ""  # the weights that training started from, and how those were trained


class RunOptions(Struct):
    """Of the options of a saved run, those that say how to rebuild its discriminator."""

    arch: Literal[tuple(zoo.ZOO)]
    channels: Channels
    loss: Literal[tuple(LOSSES)]
    vision_aided: bool
    labels: Labels


class RunFacts(Struct):
    """How far a saved run is."""

    step: Count
    seconds: Annotated[float, Meta(ge=0, le=1e12)]
    options: dict[str, object]
    suspicions: dict[str, Count] = {}


NUMBERS = ("size", "z_dim", "channels", "step", "images_seen", "seed")  # all metadata are text
NO_GENERATOR = "these weights do not say which generator they belong to; take the generator.safetensors that train.py wrote"
DAMAGED = "the file is damaged; take another copy"


def write_tensors(path, arrays, metadata):
    """Writes named numpy arrays and text metadata, with the arrays' checksums, as one file, atomically.

    Raises FloatingPointError, and leaves `path` as it was, when a number in them is not finite.
    """
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise FloatingPointError(name)
    checksums = {name: checksum(array) for name, array in arrays.items()}
    with replacing(path) as temporary:
        temporary.write_bytes(save(arrays, {**metadata, "checksums": json.dumps(checksums)}))


def checksum(array):
    """A digest of an array's numbers."""
    return hashlib.blake2b(np.ascontiguousarray(array), digest_size=8).hexdigest()


@contextmanager
def opened(path, hint="train.py writes one, or name another"):
    """A safetensors file, opened. Raises UserError, with the `hint`, where it is missing, unreadable, cut short,
    or of another kind."""
    try:
        if Path(path).exists() and not Path(path).is_file():  # opening a pipe would wait for its other end
            raise UserError(f"{path}: not a file; name a .safetensors file that train.py wrote")
        with open(path, "rb"), safe_open(path, framework="numpy") as file:
            yield file
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {hint}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); {hint}") from None
    except SafetensorError as error:
        raise UserError(f"{path}: not a readable .safetensors file ({error}); {hint}") from None


def read_metadata(path, **hint):
    """The text metadata of a file: a dict. Raises UserError."""
    with opened(path, **hint) as file:
        return file.metadata() or {}


def read_tensors(path, shapes):
    """Reads the tensors that `shapes` (name → shape) names: numpy arrays of float32, by name.

    Raises UserError where one is missing, of another shape or type, not finite, or not as it was written.
    """
    with opened(path) as file:
        present, arrays = set(file.keys()), {}
        checksums = (file.metadata() or {}).get("checksums", "{}")
        checksums = checked(parsed(checksums, path, DAMAGED), dict[str, str], path, DAMAGED)
        for name, shape in shapes.items():
            if name not in present or file.get_slice(name).get_shape() != list(shape):
                raise UserError(f"{path}: {name} is missing or has another shape; this file is of another network")
            if file.get_slice(name).get_dtype() not in ("F16", "F32"):
                raise UserError(f"{path}: {name} has numbers of an unusual type, {file.get_slice(name).get_dtype()}; float32 or "
                                "float16 are expected")
        for name in shapes:
            array = file.get_tensor(name)
            if checksums and checksums.get(name) != checksum(array) or not np.isfinite(array).all():
                raise UserError(f"{path}: {name} has other numbers than were written; {DAMAGED}")
            arrays[name] = array.astype(np.float32)
    return arrays


def network_arrays(prefix, network):
    """A network's weights and batch-norm statistics, as prefix.layer.name → array."""
    return {f"{prefix}.{name}": tensor.numpy() for name, tensor in network.state_dict().items()}


def network_shapes(prefix, network):
    """The shapes of what `network_arrays` gives; the network may have been built without memory (paddle.LazyGuard)."""
    return {f"{prefix}.{name}": tensor.shape for name, tensor in network.state_dict().items()}


def set_network(prefix, network, arrays):
    """Puts what `network_arrays` gave back into a network."""
    network.set_state_dict({name: arrays[f"{prefix}.{name}"] for name in network.state_dict()})


def adam_arrays(prefix, network, adam):
    """Adam's moments and powers under the names of the weights they belong to, as adam.prefix.layer.weight.slot → array.

    Paddle names them after tensors counted up in the process; such names mean nothing to the next one.
    """
    state = adam.state_dict()
    return {f"adam.{prefix}.{name}.{key[len(tensor.name) + 1:]}": state[key].numpy()
            for name, tensor in network.named_parameters() for key in state if key.startswith(tensor.name + "_")}


def adam_shapes(prefix, network):
    """The shapes of what `adam_arrays` gives: two moments, and the two betas to the power of the step."""
    return {f"adam.{prefix}.{name}.{slot}": shape for name, tensor in network.named_parameters() if not tensor.stop_gradient
            for slot, shape in (("moment1_0", tensor.shape), ("moment2_0", tensor.shape),
                                ("beta1_pow_acc_0", [1]), ("beta2_pow_acc_0", [1]))}


def set_adam(prefix, network, adam, arrays):
    """Puts what `adam_arrays` gave back into an optimiser of the same network."""
    names = {name: tensor.name for name, tensor in network.named_parameters()}
    adam.set_state_dict({f"{names[name]}_{slot}": arrays[key] for key in adam_shapes(prefix, network)
                         for name, slot in [key.removeprefix(f"adam.{prefix}.").rsplit(".", 1)]})


def save_run(path, networks, adams, facts):
    """Writes a whole run: `networks` and `adams` by name (an optimiser has its network's), `facts` (see RunFacts)."""
    arrays = {}
    for name, network in networks.items():
        arrays.update(network_arrays(name, network))
    for name, adam in adams.items():
        arrays.update(adam_arrays(name, networks[name], adam))
    write_tensors(path, arrays, {"run": json.dumps(facts)})


def read_facts(path, hint="start a new run with --fresh"):
    """The facts of a saved run, without its tensors; None where there is no such file. Raises UserError, with the `hint`, for a
    damaged one."""
    if not Path(path).exists():
        return None
    wrong = f"not a readable checkpoint; {hint}"
    facts = checked(parsed(read_metadata(path, hint=hint).get("run", ""), path, wrong), RunFacts, path, wrong)
    facts["options"] = checked(facts["options"], RunOptions, path, wrong)
    return facts


def load_run(path, networks, adams):
    """Puts a saved run back into networks and optimisers made alike. Raises UserError where it does not fit."""
    shapes = {}
    for name, network in networks.items():
        shapes.update(network_shapes(name, network))
    for name in adams:
        shapes.update(adam_shapes(name, networks[name]))
    arrays = read_tensors(path, shapes)
    for name, network in networks.items():
        set_network(name, network, arrays)
    for name, adam in adams.items():
        set_adam(name, networks[name], adam, arrays)


def save_generator(path, generator, facts):
    """Writes a generator's weights; `facts` (see GeneratorFacts) say how to rebuild it and how it was trained.

    Its `scores` on held-out faces and the `labels` it takes, dicts, may be empty.
    """
    arrays = {name: tensor.numpy() for name, tensor in generator.state_dict().items()}
    write_tensors(path, arrays, {key: json.dumps(facts[key]) if key in ("scores", "labels")
                                 else printable(facts[key])[:2000] for key in GeneratorFacts.__struct_fields__ if key in facts})


def read_generator_facts(path):
    """What a generator's file says, without its tensors: a dict as in GeneratorFacts. Raises UserError."""
    text = read_metadata(path)
    facts = {key: parsed(text[key], path, NO_GENERATOR) if key in ("scores", "labels", *NUMBERS) else text[key]
             for key in GeneratorFacts.__struct_fields__ if key in text}
    return checked({"from_": "", **facts}, GeneratorFacts, path, NO_GENERATOR)


def load_generator(path):
    """Rebuilds a generator from its file alone: (Generator in evaluation mode, facts). Raises UserError."""
    facts = read_generator_facts(path)
    plan = zoo.Plan(**{key: facts[key] for key in zoo.Plan._fields})
    if not plan.exists():
        raise UserError(f"{path}: no network {plan.arch} draws {plan.size} px with --up {plan.up or 'none'}; {NO_GENERATOR}")
    if len(set(map(len, plan.labels.values()))) > 1:
        raise UserError(f"{path}: its labels are of different lengths; {NO_GENERATOR}")
    with paddle.LazyGuard():
        shapes = network_shapes("", zoo.build_generator(plan))
    arrays = read_tensors(path, {name[1:]: shape for name, shape in shapes.items()})
    generator = zoo.build_generator(plan)
    generator.set_state_dict(arrays)
    generator.eval()
    return generator, facts


def load_discriminator(path, size, aid):
    """The discriminator of a saved run, as it was in training (batch statistics) but for dropout. Raises UserError.

    `aid` is the network that a vision-aided one is for.
    """
    options = SimpleNamespace(**read_facts(path)["options"])
    plan = zoo.Plan(options.arch, size, labels=options.labels, channels=options.channels)
    arguments = plan, options.loss, aid if options.vision_aided else None
    with paddle.LazyGuard():
        shapes = network_shapes("discriminator", zoo.build_discriminator(*arguments))
    arrays = read_tensors(path, shapes)
    discriminator = zoo.build_discriminator(*arguments)
    set_network("discriminator", discriminator, arrays)
    for layer in discriminator.sublayers():
        if isinstance(layer, nn.Dropout):
            layer.eval()
    return discriminator
