"""What the page of app.py answers its visitors."""
from support.cli import UserError

from contextlib import contextmanager
from pathlib import Path

import gradio as gr
import numpy as np

from latent.directions import Directions, moved
from latent.projection import cut_face, project
from network import draw_faces
from support import figures
from support.pages import MAX_FACES, MAX_SEED, bounded, enlarged, inputs_in, photo_in, save_walk, seed, seeds_from, text_of
from training.randomness import LIMITS, between, draws, face_inputs

VARIATIONS = 8
MIN_TRUNCATION = 0.6  # with less, faces look blurred and alike
MOVES = ("Smiling", "Male", "Young", "Blond_Hair", "Eyeglasses")  # attributes that have a slider
MAX_MOVE = 3  # standard deviations of z


@contextmanager
def as_message():
    """Inside the block a UserError becomes a message on the visitor's page."""
    try:
        yield
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from None


class Page:
    """The functions behind the page. Their arguments come from visitors, who may send any value, and are bounded here.

    Files are written into `folder`. Each kind of file has one name, for Gradio copies a file before the next request is drawn.
    """

    def __init__(self, generators, folder):
        self.generators, self.folder = generators, Path(folder)
        self.directions = {}  # by a generator's name, found when they are first asked for
        self.attributes = list(dict.fromkeys(name for generator in generators.values() for name in generator.plan.labels))

    def generator(self, name):
        """The generator of this name."""
        if str(name) not in self.generators:
            raise gr.Error("no such generator", print_exception=False)
        return self.generators[str(name)]

    def inputs(self, weights, seeds, truncation, labels):
        """A generator and its inputs for these seeds. A `truncation` below 1 moves z towards the mean of the noise."""
        generator = self.generator(weights)
        plan = generator.plan
        asked = {name: 1 if label == "+" else -1 for name, label in zip(self.attributes, labels) if label in ("+", "-")}
        inputs = face_inputs(plan, seeds, asked)
        middle = np.float32(sum(LIMITS[plan.noise]) / 2)
        share = np.float32(bounded(truncation, MIN_TRUNCATION, 1, 1))
        inputs[:, :plan.z_dim] = middle + share * (inputs[:, :plan.z_dim] - middle)
        return generator, inputs

    def faces(self, weights, first, count, truncation, labels):
        """A gallery of the faces of seeds in a row, with their seeds."""
        seeds = seeds_from(first, count)
        return list(zip(enlarged(draw_faces(*self.inputs(weights, seeds, truncation, labels))), map(str, seeds)))

    def picture(self, gallery):
        """A gallery as one picture: the path of a file."""
        path = self.folder / "faces.png"
        figures.save_picture(path, figures.grid(np.stack([face for face, _ in gallery])))
        return str(path)

    def walk(self, weights, start, end, truncation, labels):
        """An interpolation from one seed to another and back: the path of a .gif file."""
        generator, z = self.inputs(weights, [seed(start), seed(end)], truncation, labels)
        path = self.folder / "walk.gif"
        save_walk(path, generator, *z)
        return str(path)

    def vary(self, weights, which, direction, strength, truncation, labels):
        """A gallery of one face and its variations: an interpolation to another face, which `direction` chooses, up to the share
        `strength` of the way."""
        other = int(draws(seed(which), "variation", seed(direction)).integers(MAX_SEED))
        generator, z = self.inputs(weights, [seed(which), other], truncation, labels)
        z[1, generator.plan.z_dim:] = z[0, generator.plan.z_dim:]  # with the same attributes
        shares = np.linspace(0, bounded(strength, 0, 1, 0.6), VARIATIONS)
        faces = draw_faces(generator, between(generator.plan, *z, shares))
        return list(zip(enlarged(faces), (f"{share:.0%}" for share in shares)))

    def find(self, weights, photo):
        """The z of the face nearest to the one in a photo, a data address, as text; where none was chosen nothing changes.

        The photo stays in memory.
        """
        generator = self.generator(weights)
        if not photo:
            return gr.skip()
        with as_message():
            return text_of(project(generator, cut_face(photo_in(photo), generator.size, "photo")))

    def mine(self, weights, which, z, moves, truncation, labels):
        """A generator and two rows of inputs: a face, that of the text `z` or else of a seed, and the same moved along MOVES."""
        generator, inputs = self.inputs(weights, [seed(which)], truncation, labels)
        own = inputs_in(z, inputs.shape[1])
        inputs = np.concatenate([inputs if own is None else own[None]] * 2)
        moves = [bounded(move, -MAX_MOVE, MAX_MOVE, 0) for move in moves]
        with as_message():
            if any(moves) and weights not in self.directions:
                self.directions[weights] = Directions(generator)
            for name, move in zip(MOVES, moves):
                if move:
                    inputs[1] = moved(generator.plan, inputs[1], self.directions[weights].along(name), [move])[0]
        return generator, inputs

    def change(self, weights, which, z, moves, to, truncation, labels):
        """A gallery of a face before and after it is moved, and the path of a film from there to the face of the seed `to`."""
        generator, inputs = self.mine(weights, which, z, moves, truncation, labels)
        path = self.folder / "journey.gif"
        save_walk(path, generator, inputs[1], self.inputs(weights, [seed(to)], truncation, labels)[1][0])
        return list(zip(enlarged(draw_faces(generator, inputs)), ("0", "1"))), str(path)

    def asked_for(self, request: "gr.Request"):
        """The state in the page's address, in the order of what `connect` of app.py calls `shown`; else the defaults."""
        asked = request.query_params.get
        weights = asked("weights") if asked("weights") in self.generators else next(iter(self.generators))
        labels = [label if label in ("+", "-") else "" for label in asked("labels", "").split(",")]
        labels = (labels + [""] * len(self.attributes))[:len(self.attributes)]
        moves = [bounded(move, -MAX_MOVE, MAX_MOVE, 0) for move in asked("moves", "").split(",")[:len(MOVES)]]
        own = inputs_in(asked("z", ""), self.generators[weights].plan.inputs)
        return [weights, seed(asked("first")), int(bounded(asked("count"), 1, MAX_FACES, 16)),
                bounded(asked("truncation"), MIN_TRUNCATION, 1, 1), seed(asked("mine")), "" if own is None else asked("z"),
                *moves, *[0] * (len(MOVES) - len(moves)), *labels]
