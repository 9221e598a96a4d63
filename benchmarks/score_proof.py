"""Shows what the scores see: real faces damaged in known ways, to known degrees.

    python pretreat.py --attributes --holdout 0.15
    python -m benchmarks.score_proof --data imgs                 # two minutes on two cores
    python -m benchmarks.score_proof --data imgs --inception FILE     # FID, too, and whether both order the sets alike

All sets are compared with the same held-out faces. Writes table.md and scores.json.
"""
from support.cli import Parser, UserError, number, run_command

from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr

import zoo
from dataReader import DataReader
from network import draw_faces
from pretrained.train_features import DAMAGES, damage
from scoring import fid, metrics
from scoring.facefeatures import SIDE, face_features
from scoring.neighbours import neighbour_scores
from support.files import write_json
from training.checkpoint import load_generator
from training.randomness import draws, face_inputs

BLURS = (0.5, 1, 2)  # px
AMOUNTS = (0.1, 0.25, 0.5, 1)  # of the damages that the features were trained to see
COPIES = (2, 10)  # of each face, as after mode collapse
SIZES = (1000, 5000)  # numbers of faces
LEFT_OUT = ("Smiling", "Male", "Eyeglasses", "Blond_Hair")  # attributes without which a generator may be trained


def altered(reader, rows):
    """Sets of faces made from the real ones in `rows`, by name: uint8 [N, S, S, 3] each."""
    faces, labels = reader.faces[rows], reader.labels[rows]
    sets = {"real faces": faces}
    for deviation in BLURS:
        blurred = gaussian_filter(faces.astype(np.float32), (0, deviation, deviation, 0))
        sets[f"blur of {deviation} px"] = blurred.round().astype(np.uint8)
    for kind in (kind for kind in DAMAGES if kind != "blur"):
        for amount in AMOUNTS:
            made = (damage(kind, face, faces[i - 1], amount, draws(0, kind, i)) for i, face in enumerate(faces))
            sets[f"{kind}, {amount}"] = np.stack([np.clip(np.round(some), 0, 255).astype(np.uint8) for some in made])
    for copies in COPIES:
        sets[f"each face {copies} times"] = faces[np.arange(len(faces)) // copies]
    for name in LEFT_OUT:
        without = faces[labels[:, reader.manifest["attributes"].index(name)] < 0]
        sets[f"without {name}"] = without[np.arange(len(faces)) % len(without)]
    for name, some in metrics.baselines(faces, zoo.Plan()).items():
        sets.setdefault(name, some)
    return sets


def score(some, reals, inception=None):
    """The scores of two equal sets of faces, by name."""
    seen, known = face_features(some), face_features(reals)
    scores = {"face_fd": fid.frechet_distance(seen, known), **neighbour_scores(seen, known),
              "swd": float(np.mean(list(metrics.sliced_wasserstein(some, reals, directions=64).values()))),
              "ms_ssim": metrics.ms_ssim(some)}
    if inception:
        scores["fid"] = fid.frechet_distance(*(fid.features(inception, faces) for faces in (some, reals)))
    return scores


def table(scores):
    """All scores as a Markdown table."""
    columns = list(next(iter(scores.values())))
    lines = ["| faces | " + " | ".join(columns) + " |", "| --- |" + " --- |" * len(columns)]
    return "\n".join(lines + [f"| {name} | " + " | ".join(f"{some[key]:.3g}" for key in columns) + " |"
                              for name, some in scores.items()]) + "\n"


def main():
    """The command: makes the sets, scores them, and prints the table."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--data", type=Path, default=Path("imgs"), metavar="DIR", help="faces with attributes (default: imgs)")
    add("--n", type=number(int, 100), default=1500, help="faces in a set (default: 1500)")
    add("--weights", nargs="*", default=[], metavar="FILE", help="generators to be scored, too")
    add("--inception", metavar="FILE", help="Inception's weights, for FID")
    add("--out", type=Path, default=Path("Output-scores"), metavar="DIR", help="(default: Output-scores)")
    options = parser.parse_args()
    training, heldout = (DataReader(options.data, 1, split=split) for split in ("train", "heldout"))
    if training.size != SIDE or not training.manifest.get("attributes"):
        raise UserError(f"--data {options.data}: faces of {SIDE} px with attributes are needed (pretreat.py --attributes)")
    count = min(options.n, len(heldout))
    inception = fid.load_inception(fid.find_inception(options.inception)) if options.inception else None
    reals = heldout.faces[heldout.rows[:count]]
    sets = altered(training, draws(0, "proof").permutation(training.rows)[:count])
    for path in options.weights:
        generator, _ = load_generator(path)
        sets[path] = draw_faces(generator, face_inputs(generator.plan, range(count)))
    scores = {name: score(some, reals, inception) for name, some in sets.items()}
    some, others = (training.faces[half] for half in np.split(draws(0, "sizes").permutation(training.rows)[:2 * SIZES[-1]], 2))
    for size in (size for size in SIZES if size <= len(others)):
        for name, faces in {"real faces": some[:size], "blur of 1 px": sets["blur of 1 px"]}.items():
            if len(faces) >= size:
                scores[f"{name}, {size}"] = score(faces[:size], others[:size], inception)
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "scores.json", scores)
    (options.out / "table.md").write_text(table(scores))
    print(table(scores))
    if inception:
        print(f"rank correlation of face FD and FID: "
              f"{spearmanr([some['face_fd'] for some in scores.values()], [some['fid'] for some in scores.values()])[0]:.3f}")


if __name__ == "__main__":
    run_command(main)
