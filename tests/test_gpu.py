"""Training on a GPU; skipped where there is none. The images/s of each run are printed with -s.

    python -m pytest -s tests/test_gpu.py                          # a minute or two
    FACES_TEST_DEVICE=cpu python -m pytest -s tests/test_gpu.py    # the same tests on the CPU, to try them out
"""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest

import train
import zoo
from augment import POLICIES
from network import draw_faces
from support.device import cpu_without_bfloat16, gpu_trouble
from training.checkpoint import load_generator
from training.randomness import face_inputs

DEVICE = os.environ.get("FACES_TEST_DEVICE", "gpu")
PRECISIONS = {"off": "float32", "bfloat16": "bfloat16", "float16": "float16"}  # --amp → what the run says that it computed in
SMALL = ("--channels", 8, "--batch", 16, "--z-dim", 16)


@pytest.fixture(scope="module", autouse=True)
def device():
    """The device of these tests, and the CPU again for the others."""
    trouble = gpu_trouble() if DEVICE == "gpu" else None
    if trouble:
        pytest.skip(f"no usable GPU: {trouble}")
    paddle.set_device(DEVICE)
    yield
    paddle.set_device("cpu")


@pytest.fixture(scope="module")
def speeds():
    """What was run → its images per second in steps 11 to 20; printed at the end."""
    measured = {}
    yield measured
    print(*(f"\n{speed:8.0f} images/s  {run}" for run, speed in measured.items()))


@pytest.fixture
def training(command, faces_at, tmp_path, monkeypatch, speeds):
    """training("--steps", 20, name="run") trains small networks in tmp_path/run and returns that folder."""
    monkeypatch.setattr(train, "LOG_EVERY", 10)

    def run(*arguments, name="run", size=64, on=DEVICE):
        result = command(train, "--device", on, "--data", faces_at(size), "--out", tmp_path / name, *SMALL, *arguments)
        assert result.status == 0, result.err
        last = json.loads((tmp_path / name / "log.jsonl").read_text().splitlines()[-1])
        if last["step"] == 20:
            speeds[" ".join(map(str, ("--device", on, *arguments)))] = last["images_per_second"]
        return tmp_path / name

    return run


def need(amp):
    """Skips a test where the device does not compute in the type of --amp."""
    if DEVICE == "gpu" and amp == "bfloat16" and not paddle.amp.is_bfloat16_supported():
        pytest.skip("this GPU does not compute in bfloat16")
    if DEVICE == "cpu" and (amp == "float16" or amp == "bfloat16" and cpu_without_bfloat16()):
        pytest.skip(f"this CPU does not compute in {amp}")


def losses(folder):
    return np.load(folder / "losses.npy")


@pytest.mark.parametrize("amp", PRECISIONS)
@pytest.mark.parametrize("options", [*(f"--augment {policy}" for policy in ("off", *POLICIES)), "--no-vision-aided",
                                     "--up deconv --loss hinge"])
def test_it_trains(training, amp, options):
    need(amp)
    run = training("--amp", amp, *options.split(), "--steps", 20)
    assert losses(run).shape == (20, 4) and np.isfinite(losses(run)).all()
    assert json.loads((run / "options.json").read_text())["precision"] == PRECISIONS[amp]


@pytest.mark.parametrize("amp", ["off", "auto"])
@pytest.mark.parametrize("arch", zoo.ZOO)
def test_every_architecture_trains(training, arch, amp):
    run = training("--arch", arch, "--amp", amp, "--steps", 20, size=zoo.ZOO[arch].sizes[0])
    assert np.isfinite(losses(run)).all()


@pytest.mark.parametrize("amp", PRECISIONS)
def test_the_first_steps_are_those_of_a_cpu(training, tmp_path, amp):
    """From the same weights, because each kind of device draws its own initial ones. The losses are near 1.

    On an A100 Paddle multiplies float32 in TF32, which rounds by up to 1/2,000; bfloat16 rounds by up to 1/250, and on a CPU
    that makes 0.004. Without augmentation they would be off by 0.06. float16 leaves out updates until its loss scale has come
    down, which makes 0.08 for three of them.
    """
    need(amp)
    training("--steps", 1, "--amp", "off", on="cpu", name="cpu")
    shutil.copytree(tmp_path / "cpu", tmp_path / "device")
    wanted = losses(training("--steps", 5, "--amp", "off", on="cpu", name="cpu"))
    given = losses(training("--steps", 5, "--amp", amp, name="device"))
    assert (given[0] == wanted[0]).all()
    assert np.abs(given - wanted).max() < {"off": 0.01, "bfloat16": 0.02, "float16": 0.2}[amp]


def test_faces_are_those_of_a_cpu(training):
    """From the same weights and seeds, within 2 of 255 levels: TF32's rounding (see above) adds up over the layers."""
    path = training("--steps", 20) / "generator.safetensors"

    def drawn(device):
        paddle.set_device(device)
        generator, _ = load_generator(path)
        return draw_faces(generator, face_inputs(generator.plan, range(16))).astype(int)

    difference = np.abs(drawn("cpu") - drawn(DEVICE))
    assert difference.max() <= 2 and difference.mean() < 0.2


@pytest.mark.parametrize("amp", PRECISIONS)
def test_a_resumed_run_goes_on_as_if_never_interrupted(training, amp):
    """A GPU sums gradients in no fixed order, so that their last bits differ: weights off by a millionth make losses off by
    0.002.

    Without Adam's moments they would be off by 0.1. bfloat16 rounds more; float16's loss scale starts anew, as above.
    """
    need(amp)
    whole = losses(training("--amp", amp, "--decay", 0, "--steps", 20, name="whole"))
    training("--amp", amp, "--decay", 0, "--steps", 10, name="parts")
    parts = losses(training("--amp", amp, "--decay", 0, "--steps", 20, name="parts"))
    assert parts.shape == whole.shape
    assert np.abs(parts - whole).max() < {"off": 0.02, "bfloat16": 0.05, "float16": 0.2}[amp]


@pytest.mark.parametrize("amp", PRECISIONS)
def test_two_ranks_end_with_the_same_weights(faces_at, tmp_path, amp):
    need(amp)
    if DEVICE == "gpu" and paddle.device.cuda.device_count() < 2:
        pytest.skip("one GPU")
    devices = ("--devices", "0,1") if DEVICE == "gpu" else ("--nproc_per_node", 2)
    probe = Path(__file__).parent / "rank_probe.py"  # it also leaves what each rank ended with
    command = [sys.executable, "-m", "paddle.distributed.launch", *devices, "--log_dir", tmp_path / "log", probe, tmp_path,
               "--device", DEVICE, "--data", faces_at(64), "--out", tmp_path / "run", *SMALL, "--amp", amp, "--steps", 20]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    result = subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    ends = [np.load(tmp_path / f"rank{rank}.npz") for rank in range(2)]
    assert len(ends[0]) > 20 and all((ends[0][name] == ends[1][name]).all() for name in ends[0])
    assert np.isfinite(losses(tmp_path / "run")).all()
