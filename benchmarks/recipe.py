"""What each part of the training recipe brings: trains every row of the table on the same images seen, and scores it.

    python -m benchmarks.recipe --data imgs --channels 32 --images 30000      # all rows
    python -m benchmarks.recipe --data imgs --channels 64 --images 120000 --rows default classic

imgs must hold out as many faces as are scored: pretreat.py --holdout 0.25 of 8,000. Stopped, the same command resumes. Writes
a folder for each row, and scores.json, table.md, grids.png and curves.png beside them.
"""
from support.cli import Parser, UserError, number, run_command

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import recipe
import zoo
from dataReader import DataReader
from network import draw_faces
from scoring import metrics
from scoring.facefeatures import face_features
from scoring.scores import chosen, score
from support import figures
from support.device import choose_device, usable_cpus
from support.files import write_json
from training.checkpoint import load_generator
from training.randomness import face_inputs
from training.weights import LATEST

ROOT = Path(__file__).parent.parent
# The way from the plain recipe to the default, and what was tried beside it on the way.
ALONE = "--no-vision-aided --decay 0"  # rates that fall would make runs as short as these worse
SHIFTED = f"{ALONE} --up deconv --lr 2e-4 --augment-p 1"  # small batches, flips and average, every face shifted
ROWS = {
    "classic": "--preset classic",
    "classic, seed 1": "--preset classic --seed 1",
    "small batches, flips, average": f"{ALONE} --up deconv --lr 2e-4 --augment off",
    "shifts": SHIFTED,
    "shifts, seed 1": f"{SHIFTED} --seed 1",
    "resize-convolutions": f"{ALONE} --lr 2e-4 --augment-p 1",
    "resize-convolutions, seed 1": f"{ALONE} --lr 2e-4 --augment-p 1 --seed 1",
    "unaided": ALONE,
    "unaided, seed 1": f"{ALONE} --seed 1",
    "default": "",
    "default, seed 1": "--seed 1",
    "refine": "--up refine",
    "default, batch 64": "--batch 64 --lr-d 4e-4 --lr-g 2e-4",  # for a GPU whose step of 64 takes hardly longer than one of 16
    "unaided, rates falling at once": "--no-vision-aided --decay 1",
    "unaided, twice the rates": f"{ALONE} --lr-d 4e-4 --lr-g 2e-4",
    "unaided, every face shifted": f"{ALONE} --augment-p 1 --seed 1",
    "unaided, G as fast as D": f"{ALONE} --lr 2e-4 --seed 1",
    "unaided, G a quarter as fast": f"{ALONE} --lr-g 5e-5 --seed 1",
    "unaided, transposed convolutions": f"{ALONE} --up deconv --seed 1",
    "shifts, batch 128": f"{SHIFTED} --batch 128",
    "shifts, no average": f"{SHIFTED} --ema 0",
    "shifts, no flips": f"{SHIFTED} --no-flip",
    "shifts, colours, holes": f"{SHIFTED} --augment diffaugment",
    "shifts, G half as fast": f"{ALONE} --up deconv --augment-p 1",
    # on a CPU in either precision
    "bfloat16": f"{ALONE} --amp bfloat16",
    "bfloat16, seed 1": f"{ALONE} --amp bfloat16 --seed 1",
    "float32": f"{ALONE} --amp off",
    "float32, seed 1": f"{ALONE} --amp off --seed 1",
}
SCORES = {"face_fd": "{:.1f}", "precision": "{:.2f}", "recall": "{:.2f}", "swd_64": "{:.0f}",
          "swd_32": "{:.0f}", "swd_16": "{:.0f}", "swd_mean": "{:.1f}", "ms_ssim": "{:.3f}",
          "two_sample": "{:.3f}", "nearest": "{:.2f}"}


def steps_of(name, images):
    """How many steps of a row see so many images."""
    return images // recipe.parse_options(typed=ROWS[name].split()).batch


def train_row(name, steps, options):
    """Trains one row until it has so many steps, where it has not already; returns its folder."""
    folder = options.out / name.replace(",", "").replace(" ", "-")
    weights = folder / LATEST
    done = load_generator(weights)[1]["step"] if weights.exists() else 0
    if done > steps:
        raise UserError(f"{folder}: was trained {done} steps, more than the {steps} asked for; name another --out")
    if done < steps:
        command = [sys.executable, "train.py", "--device", options.device, "--data", options.data.resolve(),
                   "--out", folder.resolve(), "--channels", options.channels, "--steps", steps,
                   "--eval-every", -(-steps // 6), *ROWS[name].split()]
        threads = {"MKL_NUM_THREADS": str(max(1, usable_cpus() // options.workers))}
        with open(folder.with_suffix(".log"), "a") as log:
            status = subprocess.run(list(map(str, command)), check=False, cwd=ROOT, stdout=log, stderr=log,
                                    env=os.environ | threads).returncode
        if status:
            raise UserError(f"{name}: train.py failed, see the end of {log.name}", status=1)
    return folder


def draw(folder, count):
    """The faces of the first `count` seeds, uint8 [N, S, S, 3]."""
    generator, _ = load_generator(folder / LATEST)
    return draw_faces(generator, face_inputs(generator.plan, range(count)))


def score_all(folders, options):
    """Scores each row's generator as evaluate.py does, and the baselines once: name → name of the score → number."""
    heldout, training = (DataReader(options.data, 1, split=split) for split in ("heldout", "train"))
    count = min(options.n, len(heldout), len(training))
    others, itself = (chosen(len(reader), count, 0) for reader in (heldout, training))
    reals, known = heldout.faces[heldout.rows[others]], training.faces[training.rows[itself]]
    sets = {name: draw(folder, count) for name, folder in folders.items()}
    sets.update(metrics.baselines(known, zoo.Plan(size=heldout.size, channels=options.channels)))

    def with_distances(faces):
        known_places = itself if faces is known else None  # a training face is not its own neighbour
        distances, _ = metrics.nearest(faces, training, known_places)
        return SimpleNamespace(faces=faces, seen=face_features(faces), distances=distances, features=None)

    reals = with_distances(reals)
    return {name: score(with_distances(faces), reals, seed=0) for name, faces in sets.items()}


def table(scores):
    """All scores as a Markdown table."""
    some = next(iter(scores.values()))
    columns = {key: form for key, form in SCORES.items() if key in some}  # small faces have fewer levels
    lines = ["| recipe | options | " + " | ".join(columns) + " |", "| --- | --- |" + " --- |" * len(columns)]
    for name, some in scores.items():
        arguments = f"`{ROWS[name]}`" if ROWS.get(name) else ""
        lines.append(f"| {name} | {arguments} | " + " | ".join(form.format(some[key]) for key, form in columns.items()) + " |")
    return "\n".join(lines) + "\n"


def curve(folder):
    """The scores that a run gave itself, as (images seen, face FD)."""
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [(line["images_seen"], line["face_fd"]) for line in lines if "face_fd" in line]


def main():
    """The command: trains and scores the rows, `--workers` at a time, and writes the table and the grids."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--data", type=Path, default=Path("imgs"), metavar="DIR", help="packed faces (default: imgs)")
    add("--out", type=Path, default=Path("Output-recipe"), metavar="DIR", help="(default: Output-recipe)")
    add("--images", type=number(int, 1000), default=30_000, help="images seen by each row (default: 30000)")
    add("--channels", type=number(int, 1), default=32, help="width of the networks (default: 32)")
    add("--n", type=number(int, 20), default=2000, help="faces to be scored (default: 2000)")
    add("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help="names in this file (default: all)")
    add("--workers", type=number(int, 1), default=1, help="rows at a time (default: 1)")
    add("--device", choices=("auto", "cpu", "gpu"), default="auto", help="(default: auto)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(options.workers) as threads:
        steps = [steps_of(name, options.images) for name in options.rows]
        folders = dict(zip(options.rows, threads.map(train_row, options.rows, steps, [options] * len(steps))))
    choose_device(options.device)
    scores = score_all(folders, options)
    write_json(options.out / "scores.json", scores)
    (options.out / "table.md").write_text(table(scores))
    figures.save_rows(options.out / "grids.png", {name: draw(folder, 12) for name, folder in folders.items()})
    levels = {name: scores[name]["face_fd"] for name in ("real faces", "PCA faces")}
    curves = {name: points for name, folder in folders.items() if (points := curve(folder))}
    figures.save_scores(options.out / "curves.png", curves, levels)
    print(table(scores) + f"\n{options.out}/grids.png has twelve faces of each row, curves.png the scores as they fell")


if __name__ == "__main__":
    run_command(main)
