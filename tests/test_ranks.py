"""Real runs of several processes, as Paddle's launcher starts them, on the CPU (gloo)."""
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import psutil
import pytest
from safetensors.numpy import load_file

from support import cli
from training import checkpoint, ranks
from zoo import Plan, build_generator

ROOT = Path(__file__).parent.parent
TINY = ("--device", "cpu", "--channels", 4, "--batch", 32, "--z-dim", 8)
LAUNCH = (sys.executable, "-m", "paddle.distributed.launch")


def start(folder, faces, script, *arguments, launcher=()):
    """A process that trains into folder/run; its output goes to folder/output.txt."""
    command = [*launcher, *(["--log_dir", folder / "log"] if launcher else [sys.executable]), ROOT / script,
               *([folder] if "probe" in script else []), "--data", faces, "--out", folder / "run", *TINY, *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment["PYTHONPATH"] = str(ROOT)  # for the probe
    with open(folder / "output.txt", "a") as output:
        return subprocess.Popen([str(word) for word in command], stdout=output, stderr=subprocess.STDOUT, env=environment)


def train(folder, faces, *arguments, count=1):
    folder.mkdir(exist_ok=True)
    launcher = (*LAUNCH, "--nproc_per_node", count) if count > 1 else ()
    status = start(folder, faces, "tests/rank_probe.py", *arguments, launcher=launcher).wait(timeout=120)
    assert status == 0, (folder / "output.txt").read_text()


def ended_with(folder, rank):
    return {name: array.tobytes() for name, array in np.load(folder / f"rank{rank}.npz").items()}


def saved(folder):
    return load_file(folder / "run" / "checkpoint.safetensors")


def wait_for(path, process):
    deadline = time.time() + 100
    while not path.exists():
        assert time.time() < deadline and process.poll() is None
        time.sleep(0.05)


def workers(launcher):
    """The ranks' processes, in their order."""
    return sorted(psutil.Process(launcher.pid).children(), key=lambda process: int(process.environ()["PADDLE_TRAINER_ID"]))


def test_two_ranks_end_with_bitwise_the_same(faces16, tmp_path):
    train(tmp_path, faces16, "--steps", 4, "--eval-every", 3, count=2)  # scores, and so a status line, at an odd step
    assert ended_with(tmp_path, 0) == ended_with(tmp_path, 1) and len(ended_with(tmp_path, 0)) > 20
    assert sorted(os.listdir(tmp_path / "run")) == [
        "best.safetensors", "checkpoint.safetensors", "generator.safetensors", "log.jsonl", "loss.png", "losses.npy",
        "options.json", "reals.png", "samples"]


def test_without_batch_norm_the_number_of_ranks_changes_nothing(faces16, tmp_path):
    """One process for six steps; and one for two, two ranks for two more, then one again."""
    options = ("--without-bn", "--decay", 0, "--augment-p", 0.5)  # more grey edges, more LeakyReLUs of 0, which rounding decides
    train(tmp_path / "one", faces16, *options, "--steps", 6)
    for steps, count in ((2, 1), (4, 2), (6, 1)):
        train(tmp_path / "several", faces16, *options, "--steps", steps, count=count)
    one, several = saved(tmp_path / "one"), saved(tmp_path / "several")
    assert one.keys() == several.keys()
    for name in one:
        assert np.allclose(one[name], several[name], rtol=1e-4, atol=1e-7), name
    losses = [np.load(tmp_path / name / "run" / "losses.npy") for name in ("one", "several")]
    assert losses[0].shape == (6, 4) and np.allclose(*losses, rtol=1e-5)


def test_two_machines(faces16, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        master = f"127.0.0.1:{free.getsockname()[1]}"
    machines = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        launcher = (*LAUNCH, "--nnodes", 2, "--master", master, "--rank", number, "--nproc_per_node", 1)
        machines.append(start(tmp_path / str(number), faces16, "tests/rank_probe.py", "--steps", 3, launcher=launcher))
    assert [machine.wait(timeout=120) for machine in machines] == [0, 0]
    assert ended_with(tmp_path / "0", 0) == ended_with(tmp_path / "1", 1)
    assert (tmp_path / "0" / "run" / "checkpoint.safetensors").exists() and not (tmp_path / "1" / "run").exists()


@pytest.mark.parametrize("victim", [0, 1])
def test_when_a_rank_is_killed_the_others_end_with_a_sentence(faces16, tmp_path, victim):
    path = tmp_path / "run" / "checkpoint.safetensors"
    launcher = start(tmp_path, faces16, "train.py", "--steps", 100_000, "--save-every", 5,
                     launcher=(*LAUNCH, "--nproc_per_node", 2))
    wait_for(path, launcher)
    processes = workers(launcher)
    processes[victim].kill()
    assert launcher.wait(timeout=60) != 0 and not any(process.is_running() for process in processes)
    survivor = (tmp_path / "log" / f"workerlog.{1 - victim}").read_text()
    assert "another process of this run ended" in survivor and "Traceback" not in survivor
    step = checkpoint.read_facts(path)["step"]
    train(tmp_path, faces16, "--steps", step + 2, count=2)
    assert f"resumes at step {step} of {step + 2}" in (tmp_path / "output.txt").read_text()


@pytest.mark.parametrize("count", [1, 2])
def test_a_stopped_launcher_leaves_a_saved_run(faces16, tmp_path, count):
    launcher = start(tmp_path, faces16, "train.py", "--steps", 100_000, launcher=(*LAUNCH, "--nproc_per_node", count))
    wait_for(tmp_path / "run" / "samples" / "0000_000000.png", launcher)
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait(timeout=60) != 0
    assert "stopped and saved in" in (tmp_path / "log" / "workerlog.0").read_text()
    assert checkpoint.read_facts(tmp_path / "run" / "checkpoint.safetensors")["step"] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_the_ranks_of_a_killed_launcher_save_and_end(faces16, tmp_path):
    launcher = start(tmp_path, faces16, "train.py", "--steps", 100_000, launcher=(*LAUNCH, "--nproc_per_node", 2))
    wait_for(tmp_path / "run" / "samples" / "0000_000000.png", launcher)
    processes = workers(launcher)
    launcher.kill()
    launcher.wait()
    _, left = psutil.wait_procs(processes, timeout=60)
    for process in left:
        process.kill()
    assert len(processes) == 2 and not left
    assert "stopped and saved in" in (tmp_path / "log" / "workerlog.0").read_text()
    assert checkpoint.read_facts(tmp_path / "run" / "checkpoint.safetensors")["step"] > 0


def test_a_launcher_that_is_gone_already(monkeypatch):
    monkeypatch.setattr(ranks, "LAUNCHED", True)
    monkeypatch.setattr(ranks, "LAUNCHER", -1)
    monkeypatch.setattr(os, "getsid", lambda _: os.getpid())
    monkeypatch.setattr(ranks.ctypes, "CDLL", lambda _: SimpleNamespace(prctl=lambda *_: 0))
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(cli.UserError, match="launcher has ended"):
        ranks.join()


def test_on_gpus_batch_norm_sees_all_ranks(monkeypatch):
    network = build_generator(Plan(size=16, z_dim=8, channels=4))
    before = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    trained = {weight.name for weight in network.parameters() if not weight.stop_gradient}
    monkeypatch.setattr(ranks, "COUNT", 2)
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    monkeypatch.setattr(paddle, "DataParallel", lambda layers: layers)
    assert ranks.parallel(network) is network
    layers = [type(layer).__name__ for layer in network.sublayers()]
    assert layers.count("SyncBatchNorm") == 2 and "BatchNorm2D" not in layers
    after = network.state_dict()
    assert list(after) == list(before) and all((after[name].numpy() == before[name]).all() for name in before)
    assert {weight.name for weight in network.parameters() if not weight.stop_gradient} == trained


def test_ranks_that_were_started_differently(monkeypatch):
    typed, faces = {"lr": 1e-4, "g_steps": 2, "data": "imgs"}, {"pictures": "aa", "labelled": ""}
    for first, named in (([{**typed, "g_steps": 1}, faces], "another --g-steps than"),
                         ([typed, {**faces, "pictures": "bb"}], r"another --data \(other faces\) than")):
        monkeypatch.setattr(ranks, "from_first", lambda _, first=first: first)
        with pytest.raises(cli.UserError, match=named):
            ranks.require_same(typed, faces)
    monkeypatch.setattr(ranks, "from_first", lambda _: [{**typed, "data": "/mnt/imgs"}, faces])
    ranks.require_same(typed, faces)
