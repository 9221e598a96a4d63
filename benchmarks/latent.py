"""How near the faces that generator.py --photo finds are to their photos, and what the directions of contrast.py change.

    python pretreat.py --attributes             # the photos are held-out faces with labels
    python -m benchmarks.latent --n 200

A face found for a photo has an attribute where the network of scoring/facefeatures.py says so, the photo where its label does. In
the features of that network, which took no part in finding the face, the face is compared with its own photo and with all others.
"""
from support.cli import Parser, UserError, number, run_command

from pathlib import Path

import numpy as np
from tqdm import tqdm

from dataReader import DataReader
from latent.directions import Directions, attribute_logits, attribute_names, shares_with
from latent.projection import project
from network import draw_faces
from scoring.facefeatures import face_features
from support import figures
from support.device import choose_device
from training.checkpoint import load_generator
from training.weights import PRETRAINED, weights_path

ATTRIBUTES = ("Smiling", "Male", "Young", "Eyeglasses", "Blond_Hair", "Black_Hair")
STRENGTH = 2  # of directions, in both senses: the default of contrast.py


def build_parser():
    """The parser of the command's options."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--data", default="imgs", metavar="DIR", help="packed faces with labels")
    add("--weights", type=weights_path, default=PRETRAINED, metavar="FILE", help="the generator (default: the pretrained one)")
    add("--n", type=number(int, 2), default=200, help="how many held-out faces")
    add("--out", type=Path, default=Path("latent.png"), metavar="FILE", help="the first twelve photos, and the faces found")
    return parser


def judge_found(photos, labels, known, drawn):
    """Prints how often attributes agree, and how near each face is to its own photo among all."""
    has = attribute_logits(drawn) > 0
    for name in ATTRIBUTES:
        wanted, said = labels[:, known.index(name)] > 0, has[:, attribute_names().index(name)]
        print(f"{name:12} the face agrees with its photo's label in {(wanted == said).mean():.1%} of cases "
              f"({max(wanted.mean(), 1 - wanted.mean()):.1%} have the commoner label)")
    ours, theirs = face_features(drawn), face_features(photos)
    distances = np.linalg.norm(ours[:, None] - theirs[None], axis=2)
    farther = (distances > np.diag(distances)[:, None]).sum(axis=1) / (len(photos) - 1)
    print(f"nearer to its own photo than to {farther.mean():.1%} of the others on average (median {np.median(farther):.1%}); "
          f"{(farther >= 0.95).mean():.1%} of the faces are nearer than to 95% of them")


def judge_directions(generator):
    """Prints what the direction of each attribute changes."""
    found = Directions(generator)
    for name in ATTRIBUTES:
        others = [other for other in ("Smiling", "Male", "Young") if other != name]
        for kept in ([], others):
            along = found.along(name, kept)
            less, more = (shares_with(generator, along, strength) for strength in (-STRENGTH, STRENGTH))
            place = attribute_names().index(name)
            changed = {other: abs(more - less)[attribute_names().index(other)] for other in others}
            print(f"{name:12} {less[place]:4.0%} at -{STRENGTH}, {more[place]:4.0%} at +{STRENGTH}; other shares change by "
                  + ", ".join(f"{other} {share:.0%}" for other, share in changed.items()) + (" (kept)" if kept else ""))


def main():
    """The command: finds the faces of held-out photos, and judges them and the directions."""
    options = build_parser().parse_args()
    choose_device("auto")
    generator, _ = load_generator(options.weights)
    heldout = DataReader(options.data, 1, split="heldout")
    known = heldout.manifest["attributes"]
    if not known or len(heldout) < options.n:
        raise UserError(f"--data {options.data}: {options.n} held-out faces with labels are needed; pack more with pretreat.py "
                        "--attributes, or ask for fewer with --n")
    rows = heldout.rows[:options.n]
    photos, labels = heldout.faces[rows], heldout.labels[rows]
    found = np.stack([project(generator, face) for face in tqdm(photos, desc="finding", disable=None)])
    drawn = draw_faces(generator, found)
    print(f"mean of z²: {np.square(found).mean():.2f}; mean difference of pixels: {abs(drawn.astype(int) - photos).mean():.1f}")
    figures.save_rows(options.out, {"photo": photos[:12], "face found": drawn[:12]})
    judge_found(photos, labels, known, drawn)
    judge_directions(generator)


if __name__ == "__main__":
    run_command(main)
