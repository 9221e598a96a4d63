"""Arithmetic with faces: means of the z of some, added and subtracted (Radford et al. 2016, section 6.3.2)."""
from support.cli import UserError

import argparse
import re
from typing import NamedTuple

import numpy as np

from intake.attributes import parse_wanted
from latent.directions import attribute_logits, attribute_names
from latent.files import face_list
from network import draw_faces
from training.randomness import draws, face_inputs

SEARCHED, GROUP = 600, 6  # seeds among which faces with attributes are looked for; how many of them make a mean
SPREAD = 0.25  # of the uniform noise that is added to the sum for the faces around it, as in the paper


class Term(NamedTuple):
    """A term of a sum: 1 or -1, the text that was typed, and its faces, seeds or Latents; none yet where it names attributes."""

    sign: int
    text: str
    faces: list = []


def parse_sum(text):
    """An argparse type: "1,5 - 3,me.npy + Male=1,Smiling=-1" → a Term for each part."""
    first, *others = re.split(r"\s([+-])\s", text.strip())
    terms = [("+", first), *zip(others[::2], others[1::2])]
    if len(terms) < 2:
        raise argparse.ArgumentTypeError("expected a sum such as \"1,5,9 - 3,7 + 2,8\", with blanks around + and -, "
                                         f"not {text[:60]!r}")
    return [Term(1 if sign == "+" else -1, term, [] if "=" in term else face_list(term)) for sign, term in terms]


def find_terms(generator, terms):
    """The Terms with faces for those that name attributes: the GROUP of the first SEARCHED seeds that show them most.

    Raises UserError for attributes that are not known, or that fewer of these seeds show.
    """
    names = attribute_names()
    wanted = [{} if term.faces else parse_wanted(term.text, names, "--sum") for term in terms]
    if not any(wanted):
        return terms
    judged, found = attribute_logits(draw_faces(generator, face_inputs(generator.plan, range(SEARCHED)))), []
    for term, labels in zip(terms, wanted):
        if labels:
            shown = np.min([label * judged[:, names.index(name)] for name, label in labels.items()], axis=0)
            best = shown.argsort()[::-1][:GROUP]
            if shown[best[-1]] <= 0:
                raise UserError(f"--sum {term.text}: fewer than {GROUP} of this generator's first {SEARCHED} faces are so; ask "
                                "for fewer attributes, or name seeds")
            term = term._replace(faces=sorted(map(int, best)))
        found.append(term)
    return found


def add_up(plan, terms):
    """The sum of the terms' means: float32 [inputs] as in a row of `face_inputs`; labels stay between -1 and 1."""
    total = sum(term.sign * face_inputs(plan, term.faces).mean(axis=0) for term in terms)
    total[plan.z_dim:] = total[plan.z_dim:].clip(-1, 1)
    return total


def around(plan, inputs):
    """Nine faces, float32 [9, inputs]: in the middle `inputs`, around it the same with a little noise added to z."""
    rows = np.repeat(inputs[None], 9, axis=0)
    noise = draws(0, "around a sum").uniform(-SPREAD, SPREAD, (9, plan.z_dim))
    noise[4] = 0
    rows[:, :plan.z_dim] += noise.astype(np.float32)
    return rows
