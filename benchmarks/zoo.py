"""Trains each network of zoo.py on the same faces for the same number of images seen, and scores it.

    python -m benchmarks.zoo --input img_align_celeba.zip --images 16000 --channels 32

Each by the commands that a user would type: pretreat.py at the network's own size, with the same crop for all, train.py --arch,
without help for D, and evaluate.py; fakeface128, four times as wide as the others and for larger pictures, at half of --channels.
Stopped, the same command resumes. Writes a folder for each, and beside them table.md and zoo.png with faces of each.
"""
from support.cli import Parser, UserError, number, run_command

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

import zoo
from network import draw_faces
from support import figures
from support.device import choose_device, usable_cpus
from training.checkpoint import load_generator
from training.randomness import face_inputs

ROOT = Path(__file__).parent.parent
SIZES = {name: arch.sizes[0] for name, arch in zoo.ZOO.items()}
BATCH, SHOWN = 16, 64  # faces a step, as by default; px at which faces are shown side by side


def width_of(name, options):
    """The width that a network is trained at. A face takes fakeface128 forty times dcgan's work; at half the width, ten."""
    return max(1, options.channels // 2) if name == "fakeface128" else options.channels


def call(script, *arguments, log, workers=1):
    """Runs a script of the project; raises UserError where it fails."""
    threads = {"MKL_NUM_THREADS": str(max(1, usable_cpus() // workers))}
    with open(log, "a") as file:
        status = subprocess.run([sys.executable, script, *map(str, arguments)], check=False, cwd=ROOT, stdout=file, stderr=file,
                                env=os.environ | threads).returncode
    if status:
        raise UserError(f"{script} failed, see the end of {log}", status=1)


def train_and_score(name, options):
    """Packs, trains and scores one network, as far as that is not done yet; returns its folder."""
    folder, data = options.out / name, options.out / f"imgs{SIZES[name]}"
    folder.mkdir(parents=True, exist_ok=True)
    log = options.out / f"{name}.log"
    call("train.py", "--arch", name, "--no-vision-aided", "--device", options.device, "--data", data, "--out", folder,
         "--channels", width_of(name, options), "--batch", BATCH, "--steps", options.images // BATCH, log=log,
         workers=options.workers)
    weights, scores = folder / "generator.safetensors", folder / "scores.json"
    if not scores.exists() or scores.stat().st_mtime < weights.stat().st_mtime:
        call("evaluate.py", "--device", options.device, "--fake", weights, "--real", data, "--n", options.n,
             "--out", folder, log=log, workers=options.workers)
    return folder


def row(name, folder):
    """A line of the table: size, learned parameters of G in millions, scores, and those of real faces at that size."""
    generator, _ = load_generator(folder / "generator.safetensors")
    learned = sum(weight.size for weight in generator.parameters() if not weight.stop_gradient)
    scores = json.loads((folder / "scores.json").read_text())["scores"]
    ours, real = scores["generated"], scores["real faces"]
    return (f"| `{name}` | {SIZES[name]} | {learned / 1e6:.1f} | {ours['swd_mean']:.1f} | {real['swd_mean']:.1f} | "
            f"{ours['ms_ssim']:.3f} | {real['ms_ssim']:.3f} | {ours['two_sample']:.3f} | {ours['nearest']:.2f} |")


def shown(folder):
    """Twelve faces of a network, brought to the same size as those of the others."""
    generator, _ = load_generator(folder / "generator.safetensors")
    faces = draw_faces(generator, face_inputs(generator.plan, range(12)))
    return np.stack([np.asarray(Image.fromarray(face).resize((SHOWN, SHOWN), Image.Resampling.BICUBIC)) for face in faces])


def main():
    """The command: packs, trains and scores, `--workers` networks at a time, and writes the table and the picture."""
    parser = Parser(__doc__, "--input PATH [options]")
    add = parser.add_argument
    add("--input", type=Path, required=True, metavar="PATH", help="CelebA's pictures")
    add("--out", type=Path, default=Path("Output-zoo"), metavar="DIR", help="(default: Output-zoo)")
    add("--images", type=number(int, 1000), default=16_000, help="images seen by each (default: 16000)")
    add("--channels", type=number(int, 1), default=32, help="width of the networks, 64 as published (default: 32)")
    add("--n", type=number(int, 20), default=2000, help="faces to be scored (default: 2000)")
    add("--names", nargs="+", choices=zoo.ZOO, default=list(zoo.ZOO), metavar="NAME", help="which (default: all)")
    add("--workers", type=number(int, 1), default=1, help="networks at a time (default: 1)")
    add("--device", choices=("auto", "cpu", "gpu"), default="auto", help="(default: auto)")
    options = parser.parse_args()
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    for size in {SIZES[name] for name in options.names}:
        if not (options.out / f"imgs{size}").exists():
            call("pretreat.py", "--input", options.input.resolve(), "--size", size, "--holdout", 0.25, "--out",
                 options.out / f"imgs{size}", log=options.out / "pretreat.log")
    with ThreadPoolExecutor(options.workers) as threads:
        folders = dict(zip(options.names, threads.map(train_and_score, options.names, [options] * len(options.names))))
    choose_device(options.device)
    table = "\n".join(["| `--arch` | px | G, millions | SWD | real faces | MS-SSIM | real faces | two-sample | nearest |",
                       "| --- |" + " --- |" * 8, *(row(name, folder) for name, folder in folders.items())]) + "\n"
    (options.out / "table.md").write_text(table)
    figures.save_rows(options.out / "zoo.png", {name: shown(folder) for name, folder in folders.items()})
    print(table + f"\n{options.out}/zoo.png has twelve faces of each")


if __name__ == "__main__":
    run_command(main)
