"""Saving and loading: one safetensors file holds a run, another a generator that explains itself.

Safetensors files hold numbers and text alone; opening one from a stranger cannot run code.
"""
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle.nn as nn
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

import zoo
from files import replacing
from randomness import NOISES
from recipe import OLDER
from runtime import UserError

RUN, BEST, LATEST = Path("Output"), "best.safetensors", "generator.safetensors"
SHIPPED = Path(__file__).parent / "pretrained" / "celeba64.safetensors"

GENERATOR_FACTS = {"arch": str, "size": int, "z_dim": int, "channels": int, "step": int, "images_seen": int,
                   "data": str, "seed": int}
ADDED_FACTS = {"up": "deconv", "noise": "normal", "pictures": "", "where": ""}  # which older files lack


def write_tensors(path, arrays, metadata):
    """Writes named numpy arrays and text metadata as one file, atomically.

    Raises FloatingPointError, and leaves `path` as it was, when a number in them is not finite.
    """
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise FloatingPointError(name)
    with replacing(path) as temporary:
        temporary.write_bytes(save(arrays, metadata))


def read_tensors(path):
    """Reads (arrays, metadata). Raises UserError for a file that is missing, cut short, or of another kind."""
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; train.py writes one, or name another") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a readable .safetensors file ({error})") from None


def network_arrays(prefix, network):
    """A network's weights and batch-norm statistics, as prefix.layer.name → array."""
    return {f"{prefix}.{name}": tensor.numpy() for name, tensor in network.state_dict().items()}


def set_network(prefix, network, arrays, path):
    """Puts what `network_arrays` gave back into a network. Raises UserError where names or shapes differ."""
    state = {}
    for name, tensor in network.state_dict().items():
        array = arrays.get(f"{prefix}.{name}")
        if array is None or list(array.shape) != list(tensor.shape):
            raise UserError(f"{path}: {prefix}.{name} is missing or has another shape; this file is of another network")
        state[name] = array
    network.set_state_dict(state)


def adam_arrays(prefix, network, adam):
    """Adam's moments and powers under the names of the weights they belong to, as adam.prefix.layer.weight.slot → array.

    Paddle names them after tensors counted up in the process; such names mean nothing to the next one.
    """
    state = adam.state_dict()
    return {f"adam.{prefix}.{name}.{key[len(tensor.name) + 1:]}": state[key].numpy()
            for name, tensor in network.named_parameters() for key in state if key.startswith(tensor.name + "_")}


def set_adam(prefix, network, adam, arrays, path):
    """Puts what `adam_arrays` gave back into an optimiser of the same network. Raises UserError where something lacks."""
    state = {}
    for name, tensor in network.named_parameters():
        start = f"adam.{prefix}.{name}."
        slots = {key[len(start):]: array for key, array in arrays.items() if key.startswith(start)}
        if not tensor.stop_gradient and len(slots) < 4:  # two moments, and the two betas to the power of the step
            raise UserError(f"{path}: {start}* is missing; this file cannot be gone on from")
        state.update({f"{tensor.name}_{slot}": array for slot, array in slots.items()})
    adam.set_state_dict(state)


def save_run(path, networks, adams, facts):
    """Writes a whole run: `networks` and `adams` by name (an optimiser has its network's), `facts` (anything JSON holds)."""
    arrays = {}
    for name, network in networks.items():
        arrays.update(network_arrays(name, network))
    for name, adam in adams.items():
        arrays.update(adam_arrays(name, networks[name], adam))
    write_tensors(path, arrays, {"run": json.dumps(facts)})


def read_facts(path):
    """The facts of a saved run, without its tensors; None where there is no such file."""
    try:
        with safe_open(path, framework="numpy") as file:
            return json.loads(file.metadata()["run"])
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        raise UserError(f"{path}: not a readable checkpoint; move it away, or start a new run with --fresh") from None


def load_run(path, networks, adams):
    """Puts a saved run back into networks and optimisers made alike. Raises UserError where it does not fit."""
    arrays, _ = read_tensors(path)
    for name, network in networks.items():
        set_network(name, network, arrays, path)
    for name, adam in adams.items():
        set_adam(name, networks[name], adam, arrays, path)


def save_generator(path, generator, facts):
    """Writes a generator's weights; `facts` (see GENERATOR_FACTS) say how to rebuild it and how it was trained.

    Its `scores` on held-out faces and the `labels` it takes, dicts, may be empty.
    """
    arrays = {name: tensor.numpy() for name, tensor in generator.state_dict().items()}
    write_tensors(path, arrays, {**{key: str(facts[key]) for key in (*GENERATOR_FACTS, *ADDED_FACTS)},
                                 **{key: json.dumps(facts[key]) for key in ("scores", "labels")}})


def best_swd(folder):
    """The score of folder/best.safetensors; infinite where there is none."""
    try:
        with safe_open(folder / BEST, framework="numpy") as file:
            return json.loads(file.metadata()["scores"])["swd"]
    except (FileNotFoundError, SafetensorError, KeyError, TypeError, ValueError):
        return math.inf


def load_generator(path):
    """Rebuilds a generator from its file alone: (Generator in evaluation mode, facts). Raises UserError."""
    arrays, metadata = read_tensors(path)
    try:
        facts = {key: kind(metadata[key]) for key, kind in GENERATOR_FACTS.items()}
        facts.update({key: metadata.get(key, default) for key, default in ADDED_FACTS.items()})
        facts.update({key: json.loads(metadata.get(key, "{}")) for key in ("scores", "labels")})
        plan = zoo.Plan(**{key: facts[key] for key in zoo.Plan._fields})
        if plan.size not in zoo.sizes_of(plan.arch) or plan.noise not in NOISES or not isinstance(plan.labels, dict):
            raise ValueError
        generator = zoo.build_generator(plan)
    except (KeyError, ValueError, TypeError):
        raise UserError(f"{path}: these weights do not say which generator they belong to; "
                        "take the generator.safetensors that train.py wrote") from None
    set_network("generator", generator, {f"generator.{name}": array.astype(np.float32) for name, array in arrays.items()}, path)
    generator.eval()
    return generator, facts


def find_generator():
    """The weights to draw with where none are named: the run's best, else its latest, else those that come with the program.

    Says which it took. Raises UserError where there are none.
    """
    for path, what in ((RUN / BEST, "the best of the run by its score on held-out faces"),
                       (RUN / LATEST, "the latest of the run"),
                       (SHIPPED, "the generator that comes with the program; train.py makes your own")):
        if path.exists():
            print(f"weights: {what}")
            return path
    raise UserError(f"{RUN}/generator.safetensors: no such file; train.py writes one, or name another with --weights")


def load_discriminator(path, size):
    """The discriminator of a saved run, as it was in training (batch statistics) but for dropout. Raises UserError."""
    discriminator = zoo.build_discriminator(size, SimpleNamespace(**{**OLDER, **read_facts(path)["options"]}))
    set_network("discriminator", discriminator, read_tensors(path)[0], path)
    for layer in discriminator.sublayers():
        if isinstance(layer, nn.Dropout):
            layer.eval()
    return discriminator


def best_of(folder):
    """The best generator of a run, the latest where none was scored."""
    return folder / BEST if (folder / BEST).exists() else folder / LATEST


def describe_generator(facts):
    """What `load_generator` found, as one phrase for people."""
    score = f", SWD {facts['scores']['swd']:.1f} on {facts['scores']['n']:,} held-out faces" if "swd" in facts["scores"] else ""
    which = f" with {facts['where']}" if facts["where"] else ""
    labels = f", conditional on {', '.join(facts['labels'])}" if facts["labels"] else ""
    return (f"{facts['arch']}, {facts['size']}×{facts['size']} px, {facts['channels']} channels{labels}, "
            f"trained {facts['step']:,} steps ({facts['images_seen']:,} images seen) on {facts['data']}{which}, seed {facts['seed']}{score}")
