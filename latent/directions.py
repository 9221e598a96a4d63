"""Directions in z along which an attribute of the faces changes, for a generator that was trained without attributes.

The network of scoring/facefeatures.py says how much each of some thousand drawn faces has of each attribute. The direction of an
attribute is that of the linear function of z which fits this best, by least squares. (Shen et al. 2020 take a linear classifier.)
"""
from support.cli import UserError

import numpy as np

from network import draw_faces
from scoring.facefeatures import at_side, load_features
from scoring.metrics import logits
from training.randomness import face_inputs

FACES = 1500  # drawn to find the directions
JUDGED = 200  # faces on which a direction is tried
FIRST = 10**6  # the seed of the first of them: no usual seed, so that the directions can be tried on those


def attribute_logits(faces):
    """How much of each attribute faces uint8 [N, S, S, 3] have: float32 [N, attributes], above 0 where they have it."""
    network = load_features()
    return logits(lambda pictures: network(at_side(pictures))[:, :len(network.attributes)], faces)


def attribute_names():
    """The names of the attributes."""
    return list(load_features().attributes)


class Directions:
    """The directions of all attributes in the z of a generator that draws from N(0, 1); finding them takes seconds."""

    def __init__(self, generator):
        plan = generator.plan
        if plan.noise != "normal":
            raise UserError("directions are for generators that draw from --noise normal")
        inputs = face_inputs(plan, range(FIRST, FIRST + FACES))
        wanted = attribute_logits(draw_faces(generator, inputs))
        wanted = (wanted - wanted.mean(axis=0)) / (wanted.std(axis=0) + 1e-6)
        z = inputs[:, :plan.z_dim]
        self.rows = dict(zip(attribute_names(), np.linalg.lstsq(z - z.mean(axis=0), wanted, rcond=None)[0].T))

    def along(self, name, kept=()):
        """The direction of an attribute, a unit vector float32 [z_dim], made orthogonal to those of the attributes `kept`."""
        direction = self.rows[name]
        others = [self.rows[other] for other in kept if other != name]
        if others:
            basis = np.linalg.qr(np.stack(others, axis=1))[0]
            direction = direction - basis @ (basis.T @ direction)
        return (direction / np.linalg.norm(direction)).astype(np.float32)


def moved(plan, inputs, direction, strengths):
    """A face, a row of `face_inputs`, moved along a direction by these strengths: float32 [strengths, inputs].

    The numbers of z, and so its part along any direction, have the standard deviation 1: that is the unit of strength.
    """
    rows = np.repeat(inputs[None], len(strengths), axis=0)
    rows[:, :plan.z_dim] += np.outer(np.asarray(strengths, np.float32), direction)
    return rows


def shares_with(generator, direction, strength):
    """The share of faces that have each attribute, float32 [attributes], among seeds 0 to JUDGED - 1 moved along a direction."""
    inputs = face_inputs(generator.plan, range(JUDGED))
    inputs[:, :generator.plan.z_dim] += np.float32(strength) * direction
    return (attribute_logits(draw_faces(generator, inputs)) > 0).mean(axis=0)
