"""Every random draw after the initial weights: each is keyed by what it is for, so none depends on those before it."""
from support.cli import UserError

import hashlib
from typing import NamedTuple

import numpy as np


def draws(seed, purpose, *index):
    """A `numpy.random.Generator` of its own for (seed, purpose, index): the same key gives the same numbers.

    Step 1234 of seed 7 is then the same in a run that was interrupted before, and there is no state to save.
    The stream is Philox (Salmon et al. 2011), whose 128-bit key is a digest of the arguments.
    """
    text = repr((int(seed), purpose, *(int(i) for i in index)))
    key = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))


NOISES = {  # name → numbers of a `numpy.random.Generator`: from N(0, 1), from [-1, 1), from [0, 1)
    "normal": lambda numbers, shape: numbers.standard_normal(shape, dtype=np.float32),
    "uniform": lambda numbers, shape: 2 * numbers.random(shape, dtype=np.float32) - 1,
    "uniform01": lambda numbers, shape: numbers.random(shape, dtype=np.float32),
}
LIMITS = {"normal": (-3, 3), "uniform": (-1, 1), "uniform01": (0, 1)}  # nearly all of their numbers lie between


def noise(seed, purpose, update, count, z_dim, kind="normal"):
    """z for one update: float32 [count, z_dim], of a kind in NOISES."""
    return NOISES[kind](draws(seed, purpose, update), (count, z_dim))


class Latent(NamedTuple):
    """A face of no seed: its name, and what it is drawn from, float32 [inputs], as in a row of `face_inputs`."""

    name: str
    inputs: np.ndarray


def face_inputs(plan, faces, wanted=None):
    """What `faces` are drawn from, seeds or Latents: float32 [len(faces), inputs], a row a face.

    That is z, as the generator's `plan` has it (see zoo.Plan), and behind it the labels of a conditional one, -1 or 1: those in
    `wanted` (attribute → label) as asked, the others those of a training face, or the Latent's. Raises UserError for a Latent of
    another generator.
    """
    wanted = wanted or {}
    rows = np.empty((len(faces), plan.inputs), np.float32)
    for row, face in zip(rows, faces):
        if isinstance(face, Latent):
            if face.inputs.shape != row.shape:
                raise UserError(f"{face.name}: has {len(face.inputs)} numbers, but this generator draws a face from {len(row)}: "
                                "it is of another generator")
            row[:] = face.inputs
            labels = row[plan.z_dim:]
        else:
            row[:plan.z_dim] = NOISES[plan.noise](draws(face, "face"), plan.z_dim)
            chance = draws(face, "labels").random()
            labels = [labels[int(chance * len(labels))] for labels in plan.labels.values()]
        row[plan.z_dim:] = [wanted.get(name, label) for name, label in zip(plan.labels, labels)]
    return rows


def between(plan, one, other, shares):
    """Points on the way from one face to another, rows of `face_inputs`, at these `shares` of it: float32 [shares, inputs].

    z from N(0, 1) all lie about as far from 0, and what is drawn from a nearer one is dull: the way goes around 0, along a
    great circle ("slerp": Shoemake 1985; White 2016 for GANs). In uniform noise, and for labels, it is straight.
    """
    share = np.asarray(shares, np.float32)[:, None]
    way = (1 - share) * one + share * other
    if plan.noise == "normal":
        one, other = one[:plan.z_dim], other[:plan.z_dim]
        cosine = np.dot(one, other) / (np.linalg.norm(one) * np.linalg.norm(other))
        angle = np.arccos(np.clip(cosine, -1, 1))
        if np.sin(angle) > 1e-4:  # else they are the same, or opposite
            way[:, :plan.z_dim] = (np.sin((1 - share) * angle) * one + np.sin(share * angle) * other) / np.sin(angle)
    return way
