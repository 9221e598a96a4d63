"""Measures how fast the program is, always against something, in turns and in one run: machines are noisy, ratios less so.

    python -m benchmarks.speed --torch /path/to/python      # everything, about 25 minutes on two cores
    python -m benchmarks.speed step sampling                # some of it
    python -m benchmarks.speed --profile                    # where the time of a default step goes
    python -m benchmarks.speed --torch … --write            # also puts the table into docs/speed.md and docs/speed_cn.md

--torch names a Python that can import torch 2.13.0 (python -m venv torch && torch/bin/pip install torch==2.13.0); without
it the comparison with PyTorch is left out. Leave the machine, a Linux one, alone meanwhile. It needs 3 GB of disk for a while.
"""
from support.cli import Parser, UserError, number, run_command

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import paddle
import paddle.nn as nn
import psutil
from PIL import Image

from benchmarks.profile_step import profile, table
from benchmarks.worker import PRODUCTS, SIDE, STEPS
from dataReader import DataReader, normalise
from support.device import choose_device
from training import checkpoint
from zoo import Plan, build_discriminator, build_generator

ROOT = Path(__file__).parent.parent
HEADS = {"docs/speed.md": "| | this program | compared with | ratio |", "docs/speed_cn.md": "| | 本程序 | 对照 | 比值 |"}
# as the user's shell has it: importing Paddle, above, sets OMP_NUM_THREADS
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("MKL_", "OMP_"))}
BEFORE = "7f05986"  # the commit before the fast layers
BATCH = 128  # of what is not about the step
rows = []  # of the table: (English, Chinese, ours, theirs, ratio)


def add(english, chinese, ours="", theirs="", ratio=""):
    """Adds a row to the table and shows it."""
    rows.append((english, chinese, ours, theirs, ratio))
    print(" | ".join(cell for cell in (english, ours, theirs, ratio) if cell))


class Worker:
    """A worker.py process; `seconds()` lets it work once."""

    def __init__(self, kind, *arguments, python=sys.executable):
        self.process = subprocess.Popen([python, "-m", "benchmarks.worker", kind, *map(str, arguments)], text=True,
                                        cwd=ROOT, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL)
        while (line := self.process.stdout.readline()) != "ready\n":
            if not line:
                raise UserError(f"the worker {kind!r} did not start; try: {python} -m benchmarks.worker {kind}", status=1)

    def seconds(self):
        time.sleep(0.5)  # until the threads of the worker before, which wait for more work in a loop, sleep
        print("work", file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def command(*words, folder=ROOT):
    """Runs a Python command in this repository, or another `folder`.

    Returns (seconds, peak memory in MB without mapped files, output).
    """
    peak = 0
    with tempfile.TemporaryFile("w+") as output:
        started = time.perf_counter()
        process = psutil.Popen([sys.executable, *map(str, words)], cwd=folder, env=ENVIRONMENT, stdout=output,
                               stderr=subprocess.STDOUT)
        while process.poll() is None:
            with suppress(psutil.NoSuchProcess):
                memory = process.memory_info()
                peak = max(peak, memory.rss - memory.shared)
            time.sleep(0.01)
        seconds = time.perf_counter() - started
        output.seek(0)
        text = output.read()
    if process.returncode:
        sys.exit(f"speed.py: {' '.join(map(str, words))} failed:\n{text}")
    return seconds, peak / 1e6, text


def in_turns(rounds, works):
    """Calls each work (name → function) `rounds` times, one after the other; returns name → list of what they returned."""
    results = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            results[name].append(work())
    return results


def median_ratio(some, others):
    """The median of the ratios of measurements that were taken side by side."""
    return statistics.median(one / other for one, other in zip(some, others))


def forward_flops(network, x):
    """Floating-point operations of one forward pass of a single picture x, in convolutions alone: (all layers, the first).

    Each weight costs a multiplication and an addition at each position of the smaller of the layer's two maps.
    """
    flops = []
    for layer in network:
        y = layer(x)
        if isinstance(layer, (nn.Conv2D, nn.Conv2DTranspose)):
            flops.append(2 * layer.weight.size * min(x.shape[2] * x.shape[3], y.shape[2] * y.shape[3]))
        x = y
    return sum(flops), flops[0]


def step_flops(batch):
    """Floating-point operations of a step (1 D update, 2 G updates, a batch), in convolutions alone.

    Each forward pass costs once, its gradient by the weights once, its gradient by the input once; the first layer's input
    needs none, nor do D's weights in G's updates.
    """
    g, g_first = forward_flops(build_generator(Plan()), paddle.zeros([1, 100]))
    d, d_first = forward_flops(build_discriminator(Plan(), "bce"), paddle.zeros([1, 3, 64, 64]))
    d_update = g + 2 * (d + d + d - d_first)
    g_update = g + d + d + g + g - g_first
    return batch * (d_update + 2 * g_update)


def measure_step(options, place):
    """The plain training step against PyTorch's and against the arithmetic rate; the default one against what it was."""
    pairs = [("float32", "nchw", "float32"), ("float32", "channels_last", "float32"), ("bfloat16", "channels_last", "bfloat16")]
    for batch in (16, 128):
        works = {("step", precision): Worker("step", batch, precision) for precision in ("float32", "bfloat16")}
        works |= {("matmul", precision): Worker("matmul", precision) for precision in ("float32", "bfloat16")}
        if options.torch:
            works |= {pair: Worker("torch", batch, *pair[1:], python=options.torch) for pair in pairs}
        results = in_turns(options.rounds, {name: work.seconds for name, work in works.items()})
        for work in works.values():
            work.close()

        def rate(name):
            return STEPS[batch] * batch / statistics.median(results[name])

        for precision, layout, theirs in pairs if options.torch else ():
            named = layout.replace("_", " ").replace("nchw", "NCHW")
            add(f"training step, {batch} faces, {precision}, against PyTorch ({named}, {theirs})",
                f"训练一步，{batch} 张脸，{precision}，对照 PyTorch（{named}，{theirs}）",
                *(f"{rate(name):.1f} images/s" for name in (("step", precision), (precision, layout, theirs))),
                f"{median_ratio(results[precision, layout, theirs], results['step', precision]):.2f}")
        for precision in ("float32", "bfloat16"):
            reached = [STEPS[batch] * step_flops(batch) / seconds / 1e9 for seconds in results["step", precision]]
            possible = [PRODUCTS * 2 * SIDE ** 3 / seconds / 1e9 for seconds in results["matmul", precision]]
            add(f"its arithmetic, {batch} faces, {precision}, against a large matrix product",
                f"其运算速度，{batch} 张脸，{precision}，对照大矩阵乘法",
                *(f"{statistics.median(some):.0f} GFLOP/s" for some in (reached, possible)),
                f"{median_ratio(reached, possible):.2f}")
    measure_before(options, place)


def measure_before(options, place):
    """A whole train.py run, now without the help for D, and at the commit before the fast layers; without its start."""
    make_faces(place / "faces", 2000)
    before = place / "before"
    subprocess.run(["git", "-C", ROOT, "worktree", "add", "--detach", before, BEFORE], check=True, capture_output=True)

    def train(folder, *options_now):
        def run():
            with tempfile.TemporaryDirectory() as out:
                command("train.py", "--device", "cpu", "--data", place / "faces", "--out", out, "--steps", 100 + options.steps,
                        "--eval-every", 10**9, *options_now, folder=folder)
                lines = [json.loads(line) for line in (Path(out) / "log.jsonl").read_text().splitlines()]
            return (lines[-1]["seconds"] - lines[0]["seconds"]) / (lines[-1]["step"] - lines[0]["step"])
        return run

    try:
        results = in_turns(options.runs, {"now": train(ROOT, "--no-vision-aided"), "before": train(before)})
    finally:
        subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", before], check=True)
    add("train.py --no-vision-aided, against the version before the fast layers",
        "train.py --no-vision-aided，对照使用快速层之前的版本",
        *(f"{16 / statistics.median(results[name]):.1f} images/s" for name in ("now", "before")),
        f"{median_ratio(results['before'], results['now']):.2f}")


def make_faces(folder, count):
    """Packs `count` pictures of noise, as pretreat.py packs faces."""
    folder.mkdir()
    block = np.random.default_rng(0).integers(0, 256, (1000, 64, 64, 3), np.uint8)
    faces = np.lib.format.open_memmap(folder / "faces.npy", "w+", np.uint8, (count, 64, 64, 3))
    for start in range(0, count, 1000):
        faces[start:start + 1000] = block[:count - start]
    faces.flush()
    manifest = {"size": 64, "crop": "center", "sources": ["noise"], "held_out": [], "names": [str(i) for i in range(count)]}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def make_photos(folder, count):
    """Writes `count` JPEG files of CelebA's size, a hundred different ones."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    kinds = []
    for i in range(100):
        coarse = Image.fromarray(rng.integers(0, 256, (22, 18, 3), np.uint8)).resize((178, 218), Image.BICUBIC)
        grain = rng.normal(0, 6, (218, 178, 3))
        picture = Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8))
        picture.save(folder / f"{i:06d}.jpg", quality=95)
        kinds.append((folder / f"{i:06d}.jpg").read_bytes())
    for i in range(100, count):
        (folder / f"{i:06d}.jpg").write_bytes(kinds[i % 100])


def naive_faces(paths):
    """What a tutorial's loop does with photos: open, crop to CelebA's square, resize, one after the other."""
    faces = []
    for path in paths:
        picture = Image.open(path).convert("RGB").crop((25, 45, 153, 173)).resize((64, 64), Image.BILINEAR)
        faces.append(np.asarray(picture))
    return np.stack(faces)


def measure_overhead(options, place):
    """A whole train.py run against its bare steps."""
    make_faces(place / "overhead", 2000)
    started, loops, whole = [], [], []
    for i in range(options.runs):
        seconds, _, text = command("-m", "benchmarks.train_timed", "--device", "cpu", "--data", place / "overhead",
                                   "--out", place / f"run{i}", "--preset", "classic", "--steps", options.steps)
        first, steps = map(float, re.search(r"spent (\S+) (\S+)", text).groups())
        started.append(first)
        loops.append((seconds - first) / steps)
        whole.append(seconds / steps)
    add(f"train.py --preset classic, {options.steps} steps, first step to exit, against the bare steps",
        f"train.py --preset classic {options.steps} 步，从第一步到退出，对照单纯的训练步",
        ratio=f"{statistics.median(loops):.3f}")
    add(f"the same with its start of {statistics.median(started):.1f} s", f"同上，含 {statistics.median(started):.1f} 秒的启动",
        ratio=f"{statistics.median(whole):.3f}")


def measure_input(options, place):
    """pretreat.py and the reader against loops that decode picture by picture."""
    make_photos(place / "photos", 8000)
    paths = sorted((place / "photos").iterdir())

    def pretreat():
        return command("pretreat.py", "--input", place / "photos", "--out", place / "packed", "--size", 64)[0]

    def loop():
        started = time.perf_counter()
        np.save(place / "loop.npy", naive_faces(paths))
        return time.perf_counter() - started

    results = in_turns(options.rounds, {"ours": pretreat, "naive": loop})
    add("pretreat.py on 8,000 photos, the whole command, against a loop with Pillow",
        "pretreat.py 处理 8000 张照片（整条命令），对照 Pillow 循环",
        *(f"{8000 / statistics.median(results[name]):,.0f} photos/s" for name in ("ours", "naive")),
        f"{median_ratio(results['naive'], results['ours']):.1f}")

    reader = DataReader(place / "packed", BATCH, split="all")
    batches = reader.batches()

    def epoch():
        started = time.perf_counter()
        for _ in range(reader.batches_per_epoch):
            next(batches)
        return (time.perf_counter() - started) / reader.batches_per_epoch / BATCH

    def decode():
        started = time.perf_counter()
        for start in range(0, 10 * BATCH, BATCH):
            normalise(naive_faces(paths[start:start + BATCH]))
        return (time.perf_counter() - started) / 10 / BATCH

    results = in_turns(options.rounds, {"ours": epoch, "naive": decode})
    add("the reader, against decoding and resizing in every epoch", "读取器，对照每轮都解码并缩放",
        *(f"{1 / statistics.median(results[name]):,.0f} images/s" for name in ("ours", "naive")),
        f"{median_ratio(results['naive'], results['ours']):.0f}")


def measure_sampling(options, place):
    """generator.py against the forward pass, and its cold start against importing Paddle."""
    def draw(count):
        return command("generator.py", "--device", "cpu", "--weights", place / "weights.safetensors", "--out", place / "drawn",
                       "--n", count)

    limits = {kind: Worker(kind, place / "weights.safetensors") for kind in ("forward", "files")}
    results = in_turns(options.runs, {
        "ours": lambda: draw(10_000)[0],
        **{kind: lambda kind=kind: sum(limits[kind].seconds() for _ in range(10)) for kind in limits}})
    for worker in limits.values():
        worker.close()
    both = [one + other for one, other in zip(results["forward"], results["files"])]  # each takes all cores
    for english, chinese, bare in (("the bare forward pass", "单纯的前向计算", results["forward"]),
                                   ("the bare writing of the files", "单纯地写文件", results["files"]),
                                   ("both, one after the other", "两者依次", both)):
        add(f"generator.py --n 10000, the whole command, against {english}", f"generator.py --n 10000（整条命令），对照{chinese}",
            *(f"{10_000 / statistics.median(seconds):,.0f} faces/s" for seconds in (results["ours"], bare)),
            f"{median_ratio(bare, results['ours']):.2f}")
    results = in_turns(2 * options.rounds, {"ours": lambda: draw(16)[0], "bare": lambda: command("-c", "import paddle")[0]})
    ours, bare = (statistics.median(results[name]) for name in ("ours", "bare"))
    add("generator.py --n 16 from cold, against importing Paddle", "冷启动 generator.py --n 16，对照导入 Paddle",
        f"{ours:.2f} s", f"{bare:.2f} s", f"+{ours - bare:.2f} s")


def measure_growth(options, place):
    """Time and memory at 1, 10 and 100 times the data."""
    def line(english, chinese, amounts, seconds, memory):
        add(f"{english}: {amounts}", f"{chinese}：{amounts}", " · ".join(f"{value:,.1f} s" for value in seconds),
            ratio=" · ".join(f"{value:,.0f} MB" for value in memory))

    results = []
    for count in (200, 2000, 20_000):
        make_photos(place / f"photos{count}", count)
        results.append(command("pretreat.py", "--input", place / f"photos{count}", "--out", place / f"packed{count}")[:2])
    line("pretreat.py, photos", "pretreat.py，照片数", "200 · 2,000 · 20,000", *zip(*results))

    training, reading = [], []
    for count in (2000, 20_000, 200_000):
        make_faces(place / f"faces{count}", count)
        training.append(command("train.py", "--device", "cpu", "--data", place / f"faces{count}",
                                "--out", place / f"grown{count}", "--preset", "classic", "--channels", 8, "--steps", 60)[:2])
        code = ("import time, dataReader\n"
                f"reader = dataReader.DataReader({str(place / f'faces{count}')!r}, {BATCH})\n"
                "batches, started = reader.batches(), time.perf_counter()\n"
                "for _ in range(reader.batches_per_epoch): next(batches)\n"
                "print(time.perf_counter() - started)")
        _, memory, text = command("-c", code)
        reading.append((float(text.split()[-1]), memory))
    line("the reader, an epoch of faces", "读取器，一轮的人脸数", "2,000 · 20,000 · 200,000", *zip(*reading))
    trained = "train.py --preset classic --channels 8 --steps 60"
    line(f"{trained}, faces", f"{trained}，人脸数", "2,000 · 20,000 · 200,000", *zip(*training))
    drawing = [command("generator.py", "--device", "cpu", "--weights", place / "weights.safetensors",
                       "--out", place / f"drawn{count}", "--n", count)[:2] for count in (100, 1000, 10_000)]
    line("generator.py, faces", "generator.py，人脸数", "100 · 1,000 · 10,000", *zip(*drawing))


MEASURES = {"step": measure_step, "overhead": measure_overhead, "input": measure_input, "sampling": measure_sampling,
            "growth": measure_growth}


def write_tables():
    """Puts the table between the markers in both pages."""
    for column, (name, head) in enumerate(HEADS.items()):
        table = "\n".join([head, "| --- | --- | --- | --- |"] + [f"| {row[column]} | {' | '.join(row[2:])} |" for row in rows])
        text = (ROOT / name).read_text(encoding="utf-8")
        before, marker, rest = text.partition("<!-- speed -->\n")
        _, end, after = rest.partition("<!-- /speed -->")
        if not end:
            raise UserError(f"{name}: no lines <!-- speed --> and <!-- /speed --> to put the table between", status=1)
        (ROOT / name).write_text(before + marker + table + "\n" + end + after, encoding="utf-8")


def main():
    """The command: reads its options and measures."""
    parser = Parser(__doc__, "[SECTION ...] [options]")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(MEASURES)} (default: all)")
    parser.add_argument("--torch", metavar="PYTHON", help="a Python that can import torch 2.13.0")
    parser.add_argument("--rounds", type=number(int, 1), default=5, help="measurements of what takes seconds")
    parser.add_argument("--runs", type=number(int, 1), default=3, help="measurements of what takes minutes")
    parser.add_argument("--steps", type=number(int, 1), default=50, help="steps of a train.py run")
    parser.add_argument("--profile", action="store_true", help="only show where the time of a default step goes")
    parser.add_argument("--write", action="store_true", help="put the table into docs/speed.md and its twin")
    options = parser.parse_args()
    unknown = set(options.sections) - set(MEASURES)
    if unknown:
        raise UserError(f"no section is called {', '.join(sorted(unknown))}; there are {', '.join(MEASURES)}")
    if subprocess.run(["git", "-C", ROOT, "cat-file", "-e", BEFORE + "^{commit}"], capture_output=True).returncode:
        raise UserError(f"this copy lacks the commit {BEFORE}, with which a step is compared; clone the whole repository")
    if options.write and (options.sections or not options.torch):
        raise UserError("--write writes the whole table: give --torch, and no sections")
    choose_device("cpu")
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        if options.profile:
            make_faces(place / "faces", 2000)
            print(table(*profile(place / "faces", place / "run")))
            return
        facts = {"arch": "dcgan", "size": 64, "z_dim": 100, "channels": 64, "up": "deconv", "noise": "normal", "labels": {},
                 "where": "", "step": 0, "images_seen": 0,
                 "data": "none", "pictures": "", "seed": 0, "scores": {}}
        checkpoint.save_generator(place / "weights.safetensors", build_generator(Plan()), facts)
        for section in options.sections or MEASURES:
            MEASURES[section](options, place)
    if options.write:
        write_tables()


if __name__ == "__main__":
    run_command(main)
