import json
import math
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from PIL import Image
from safetensors.numpy import load_file

import pretreat
import recipe
import train
from support import files
from training import checkpoint, monitor
from training.players import networks_and_adams
from training.randomness import draws, noise

TINY = ("--device", "cpu", "--channels", 4, "--batch", 32, "--z-dim", 8)  # 3 steps an epoch on the built-in faces


@pytest.fixture
def training(command, faces16, tmp_path):
    """training("--steps", 3) trains a tiny network into tmp_path/run."""
    return lambda *arguments: command(train, "--data", faces16, "--out", tmp_path / "run", *TINY, *arguments)


def weights(folder):
    return {name: array.tobytes() for name, array in load_file(folder / "checkpoint.safetensors").items()}


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def networks_of(players):
    return networks_and_adams(players)[0]


def endless_batches():
    while True:
        yield paddle.rand([6, 3, 16, 16]) * 2 - 1, None


def test_a_run_leaves_what_the_readme_promises(training, tmp_path):
    result = training("--steps", 5, "--sample-every", 2)
    run = tmp_path / "run"
    assert result.status == 0 and "generator.py" in result.out
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoint.safetensors", "generator.safetensors", "log.jsonl", "loss.png", "losses.npy",
        "options.json", "reals.png", "samples"]
    # the untrained generator, steps 2 and 4, and the last one
    assert sorted(os.listdir(run / "samples")) == ["0000_000000.png", "0001_000002.png", "0002_000001.png", "0002_000002.png"]
    assert Image.open(run / "samples" / "0002_000002.png").size == Image.open(run / "reals.png").size == (160, 160)
    losses = np.load(run / "losses.npy")
    assert losses.dtype == np.float32 and losses.shape == (5, 4)
    [line] = log(run)
    assert set(line) >= {"step", "epoch", "images_seen", "seconds", "images_per_second", "d_loss", "g_loss", "d_real",
                         "d_fake", "memory_mb"}
    assert (line["step"], line["epoch"], line["images_seen"]) == (5, 2, 160)
    assert line["d_loss"] == pytest.approx(losses[:, 0].mean(), abs=1e-3) and 0 < line["d_real"] < 1
    assert json.loads((run / "options.json").read_text())["channels"] == 4


def test_samples_and_scores_come_early(training, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "EARLY_SAMPLES", (1, 4))
    monkeypatch.setattr(recipe, "EARLY_SCORES", (2,))
    monkeypatch.setattr(train, "FEWEST_HELD_OUT", 1)
    result = training("--steps", 6, "--sample-every", 3, "--eval-every", 5)
    assert sorted(os.listdir(tmp_path / "run" / "samples")) == [
        "0000_000000.png", "0001_000001.png", "0001_000003.png", "0002_000001.png", "0002_000003.png"]
    assert [line["step"] for line in log(tmp_path / "run")] == [2, 5, 6]
    for line in log(tmp_path / "run"):  # beside each score that of real faces
        assert f"SWD {line['swd']:.1f} (real faces: {line['real_swd']:.1f})" in result.out and line["real_swd"] < line["swd"]


def test_a_run_on_the_built_in_faces_stays_out_of_the_way(command, faces16, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = command(train, "--data", faces16, *TINY, "--steps", 1)
    assert os.listdir(tmp_path) == ["Output-builtin"] and "Output-builtin, because" in result.out
    assert result.out.splitlines()[-1].endswith("--n 16 --weights Output-builtin/generator.safetensors")


def test_the_command_that_a_run_ends_with_goes_on_with_it(training, command, tmp_path):
    training("--steps", 1)
    said = training("--fresh", "--steps", 2, "--lr", 1e-3).out
    words = shlex.split(next(line.partition(": ")[2] for line in said.splitlines() if line.startswith("more steps")))
    assert words[:2] == ["python", "train.py"]
    assert f"run: {tmp_path / 'run-2'}, going on from step 2 of 4" in command(train, *words[2:]).out


def test_epochs_count_passes_over_the_faces(training, tmp_path):
    training("--epochs", 3)
    assert checkpoint.read_facts(tmp_path / "run" / "checkpoint.safetensors")["step"] == 9
    for epochs in (3, 2):
        said = training("--epochs", epochs).out
        assert "9 steps already" in said and "--steps 18" in said and "going on" not in said
    training("--epochs", 4)
    assert checkpoint.read_facts(tmp_path / "run" / "checkpoint.safetensors")["step"] == 12


@pytest.mark.parametrize("options", ["--d-steps 2 --halve-after 2", "--preset classic", "--amp off",
                                    "--loss hinge --spectral-norm --r1 1 --up resize --no-flip"])
def test_a_resumed_run_has_bitwise_the_weights_of_one_never_interrupted(command, faces16, tmp_path, options):
    def run(name, *arguments):
        return command(train, "--data", faces16, "--out", tmp_path / name, *TINY, *options.split(), *arguments)

    run("whole", "--steps", 7)
    run("parts", "--steps", 3)
    assert "going on from step 3 of 7" in run("parts", "--steps", 7).out
    assert weights(tmp_path / "whole") == weights(tmp_path / "parts")
    assert (tmp_path / "whole" / "losses.npy").read_bytes() == (tmp_path / "parts" / "losses.npy").read_bytes()
    assert [line["step"] for line in log(tmp_path / "parts")] == [3, 7]
    assert log(tmp_path / "parts")[1]["seconds"] > log(tmp_path / "parts")[0]["seconds"]


@pytest.mark.parametrize("player, alone", [("discriminator", "--lr-g 0"), ("generator", "--lr-d 0 --g-steps 1")])
def test_learning_rates_are_halved_after_so_many_steps(command, faces16, tmp_path, player, alone):
    def learned(steps, halve_after):
        out = tmp_path / f"{steps}-{halve_after}"
        command(train, "--data", faces16, "--out", out, *TINY, *alone.split(), "--steps", steps, "--halve-after", halve_after)
        arrays = load_file(out / "checkpoint.safetensors")
        return {name: arrays[name] for name in arrays if name.startswith(player) and name.endswith("weight")}

    before, slow, fast = learned(2, 2), learned(3, 2), learned(3, 0)
    assert before
    for name in before:
        assert np.abs(fast[name] - before[name]).max() > 1e-5
        assert np.allclose(slow[name] - before[name], (fast[name] - before[name]) / 2, atol=1e-6), name


def test_another_seed_is_another_run(command, faces16, tmp_path):
    for seed in (0, 1):
        command(train, "--data", faces16, "--out", tmp_path / str(seed), *TINY, "--steps", 1, "--seed", seed)
    assert weights(tmp_path / "0") != weights(tmp_path / "1")


def test_lines_of_steps_that_a_killed_run_did_not_save_are_dropped(training, tmp_path):
    training("--steps", 2)
    with open(tmp_path / "run" / "log.jsonl", "a") as file:
        file.write('damaged\n{"step": 100}\n{"step": 2')
    training("--steps", 4)
    assert [line["step"] for line in log(tmp_path / "run")] == [2, 4]


@pytest.mark.parametrize("changed", [["--batch", 16], ["--lr-g", 1e-3], ["--loss", "hinge"], ["--augment", "off"],
                                     ["--seed", 5], ["--z-dim", 9], ["--g-steps", 1]])
def test_other_options_stop_with_their_names(training, tmp_path, changed):
    training("--steps", 2)
    before = weights(tmp_path / "run")
    result = training("--steps", 4, *changed)
    assert result.status == 2 and result.err.count("\n") == 1 and "--fresh" in result.err
    assert f"{changed[0]} (it has " in result.err and f"you ask for {changed[1]})" in result.err
    assert weights(tmp_path / "run") == before


def test_other_faces_stop_too(training, command, tmp_path, faces16):
    training("--steps", 2)
    other = tmp_path / "other"
    other.mkdir()
    manifest = json.loads((faces16 / "manifest.json").read_text())
    manifest["names"].reverse()
    (other / "manifest.json").write_text(json.dumps(manifest))
    os.link(faces16 / "faces.npy", other / "faces.npy")
    result = training("--steps", 4, "--data", other)
    assert result.status == 2 and "--data" in result.err


def test_what_a_killed_run_was_writing_is_deleted(training, tmp_path):
    for name in ("run/.writing-loss.png", "run/samples/.writing-0001_000001.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert training("--steps", 1).status == 0 and not list(tmp_path.glob("**/.writing-*"))


def test_fresh_starts_beside_the_old_run(training, tmp_path):
    training("--steps", 2)
    before = weights(tmp_path / "run")
    result = training("--steps", 1, "--fresh", "--lr", 1e-3)
    assert result.status == 0 and "run-2" in result.out
    assert weights(tmp_path / "run") == before
    assert checkpoint.read_facts(tmp_path / "run-2" / "checkpoint.safetensors")["step"] == 1


def test_discriminator_and_generator_take_their_numbers_of_updates(players_and_options):
    players, options = players_and_options(d_steps=3, g_steps=2)
    for step in range(2):
        train.train_step(step, endless_batches(), players, options)
    _, adams = networks_and_adams(players)
    for name, updates in (("generator", 4), ("discriminator", 6)):
        arrays = checkpoint.adam_arrays(name, networks_of(players)[name], adams[name])
        powers = [array for key, array in arrays.items() if "beta1_pow" in key]
        assert len(powers) >= 5 and all(power == pytest.approx(0.5 ** (updates + 1)) for power in powers)


def test_two_steps_are_those_of_the_paper(players_and_options):
    """Against the same written out plainly: nothing frozen, nothing shared, every gradient cleared."""
    players, options = players_and_options(d_steps=1, g_steps=2)
    plain, _ = players_and_options()
    batches = [paddle.to_tensor(draws(0, "test", step).random((6, 3, 16, 16), dtype="float32")) for step in range(2)]

    given = iter([(reals, None) for reals in batches])
    for step in range(2):
        train.train_step(step, given, players, options)
    assert all(weight.grad is None or not weight.grad.numpy().any() for weight in players.D.network.parameters())

    G, D = plain.G.network, plain.D.network
    for step, reals in enumerate(batches):
        fakes = G(paddle.to_tensor(noise(0, "z for D", step, 6, 8))).detach()
        loss = -(F.log_sigmoid(D(reals)).mean() + F.log_sigmoid(-D(fakes)).mean())
        loss.backward()
        plain.D.adam.step()
        for i in (2 * step, 2 * step + 1):
            for adam in (plain.D.adam, plain.G.adam):
                adam.clear_grad()
            loss = -F.log_sigmoid(D(G(paddle.to_tensor(noise(0, "z for G", i, 6, 8))))).mean()
            loss.backward()
            plain.G.adam.step()
        plain.D.adam.clear_grad()
    for name in ("generator", "discriminator"):
        ours, theirs = networks_of(players)[name].state_dict(), networks_of(plain)[name].state_dict()
        for key in ours:
            assert np.allclose(ours[key].numpy(), theirs[key].numpy(), atol=1e-5), key


def test_every_update_has_fresh_noise(players_and_options, monkeypatch):
    seen = []
    monkeypatch.setattr("training.players.noise", lambda *key: seen.append(key[:3]) or np.zeros(key[3:5], "float32"))
    players, options = players_and_options(d_steps=2, g_steps=2)
    for step in range(3):
        train.train_step(step, endless_batches(), players, options)
    assert len(seen) == len(set(seen)) == 12


def test_what_is_saved_for_sampling_is_the_average(training, tmp_path):
    training("--steps", 3)
    run, sampling = load_file(tmp_path / "run" / "checkpoint.safetensors"), load_file(tmp_path / "run" / "generator.safetensors")
    assert all((run[f"average.{name}"] == array).all() for name, array in sampling.items())
    assert any((run[f"generator.{name}"] != array).any() for name, array in sampling.items())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_and_saves(training, tmp_path, monkeypatch, number):
    record = monitor.Monitor.record

    def interrupted(self, *values):
        record(self, *values)
        if self.step == 3:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(monitor.Monitor, "record", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    result = training("--steps", 50)
    assert result.status == 128 + number and "goes on" in result.err and signal.getsignal(signal.SIGINT) is handler
    assert checkpoint.read_facts(tmp_path / "run" / "checkpoint.safetensors")["step"] == 3


def test_a_signal_that_comes_while_samples_are_drawn_loses_no_step(training, tmp_path, monkeypatch):
    draw = train.draw_faces
    calls = []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 2:  # the first are the untrained generator's, the second those of step 2
            os.kill(os.getpid(), signal.SIGTERM)
        return draw(*arguments)

    monkeypatch.setattr(train, "draw_faces", interrupted)
    assert training("--steps", 50, "--sample-every", 2).status == 128 + signal.SIGTERM
    assert checkpoint.read_facts(tmp_path / "run" / "checkpoint.safetensors")["step"] == 3


def test_checkpoints_are_written_at_epochs_ends_and_every_so_many_steps(command, faces16, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(checkpoint, "save_run", lambda path, networks, adams, facts: saved.append(facts["step"]))

    def steps(name, *arguments):
        saved.clear()
        command(train, "--data", faces16, "--out", tmp_path / name, *TINY, "--steps", 10, *arguments)
        return saved

    assert steps("a", "--save-every", 4) == [4, 8, 10]  # epochs of 3 steps are too short for one each
    monkeypatch.setattr(train, "LOG_EVERY", 2)
    assert steps("b") == [3, 6, 9, 10]


def test_two_at_once_do_not_write_into_one_run(training, tmp_path):
    (tmp_path / "run").mkdir()
    with files.claim(tmp_path / "run"):
        result = training("--steps", 1)
    assert result.status == 2 and "another command is writing" in result.err and not os.listdir(tmp_path / "run")


def test_faces_of_a_size_without_a_network(command, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    command(pretreat, "--size", 48)
    result = command(train, "--device", "cpu")
    assert result.status == 2 and "have 48" in result.err and "--size 64" in result.err


def test_options_are_written_before_the_first_step(training, tmp_path, monkeypatch):
    def look(*_):
        assert (tmp_path / "run" / "options.json").exists() and (tmp_path / "run" / "samples" / "0000_000000.png").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "train_step", look)
    assert training("--steps", 1).status == 130


def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(training, tmp_path, monkeypatch):
    training("--steps", 2)
    before = weights(tmp_path / "run")
    step = train.train_step
    monkeypatch.setattr(train, "train_step", lambda *arguments: (paddle.to_tensor(math.nan), *step(*arguments)[1:]))
    result = training("--steps", 4)
    assert result.status == 1 and "finite" in result.err and "--lr" in result.err
    assert weights(tmp_path / "run") == before


def test_weights_that_are_not_finite_are_not_saved(training, players_and_options, tmp_path):
    training("--steps", 2)
    path = tmp_path / "run" / "checkpoint.safetensors"
    before = path.read_bytes()
    players, _ = players_and_options()
    players.D.network.conv1.weight.set_value(paddle.full([4, 3, 4, 4], math.inf))
    with pytest.raises(FloatingPointError):
        checkpoint.save_run(path, *networks_and_adams(players), {})
    assert path.read_bytes() == before


def test_a_full_disk_keeps_the_last_good_checkpoint(training, tmp_path, monkeypatch):
    training("--steps", 2)
    before = weights(tmp_path / "run")

    def full(path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(files, "flush", full)
    result = training("--steps", 4)
    assert result.status == 1 and "disk is full" in result.err and result.err.count("\n") == 1
    assert weights(tmp_path / "run") == before and not list((tmp_path / "run").glob(".writing*"))


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("ResourceExhaustedError: Out of memory error on GPU 0")])
def test_out_of_memory_suggests_a_smaller_batch(training, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(train, "train_step", fail)
    result = training("--steps", 1)
    assert result.status == 1 and "--batch" in result.err and result.err.count("\n") == 1


def test_a_gpu_that_is_not_there(training, monkeypatch):
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: False)
    result = training("--steps", 1, "--device", "gpu")
    assert result.status == 2 and "--device cpu" in result.err
    assert "device: cpu" in training("--steps", 1, "--device", "auto").out
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 0)
    assert "no usable GPU" in training("--steps", 1, "--device", "auto").out


def test_a_checkpoint_that_is_not_one(training, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.safetensors").write_bytes(b"\x80\x04 not a checkpoint")
    result = training("--steps", 1)
    assert result.status == 2 and "checkpoint.safetensors" in result.err and "--fresh" in result.err


def test_suspicions_outlive_an_interruption(training, monkeypatch):
    monkeypatch.setattr(train, "LOG_EVERY", 1)
    monkeypatch.setattr(monitor, "ALIKE", -10)  # whatever faces are drawn
    assert "WARNING" not in training("--steps", 3).out
    said = training("--steps", 6).out
    assert "WARNING, step 5: The generated faces" in said and said.count("WARNING") == 1


def test_visualdl_that_is_missing_gets_a_sentence(training, monkeypatch):
    monkeypatch.setitem(sys.modules, "visualdl", None)
    result = training("--steps", 1, "--visualdl")
    assert result.status == 2 and "pip install visualdl" in result.err


def test_visualdl_gets_the_curves_and_the_samples(training, monkeypatch):
    class LogWriter:
        seen = []

        def __init__(self, logdir):
            self.seen.append(logdir)

        def add_scalar(self, tag, value, step):
            self.seen.append((tag, step))

        def add_image(self, tag, picture, step):
            self.seen.append((tag, step, picture.shape))

        def close(self):
            self.seen.append("closed")

    monkeypatch.setitem(sys.modules, "visualdl", SimpleNamespace(LogWriter=LogWriter))
    assert training("--steps", 2, "--visualdl").status == 0
    wanted = {("d_loss", 2), ("g_loss", 2), ("d_real", 2), ("d_fake", 2), ("samples", 2, (160, 160, 3)), "closed"}
    assert wanted <= set(LogWriter.seen)


def killed_again_and_again(folder, faces16, kills, steps, amp, threads):
    """Trains in a process that is killed `kills` times; returns the folders of that run and of one left alone."""
    def start(name):
        return subprocess.Popen([sys.executable, Path(train.__file__), "--data", faces16, "--out", folder / name,
                                 *map(str, TINY), "--steps", str(steps), "--save-every", "2", "--amp", amp],
                                env={**os.environ, "MKL_NUM_THREADS": threads}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                text=True)

    whole = start("whole")
    assert whole.wait() == 0, whole.stderr.read()
    path, dice = folder / "killed" / "checkpoint.safetensors", random.Random(0)
    for _ in range(kills):
        before = path.stat().st_mtime_ns if path.exists() else 0
        running = start("killed")
        while running.poll() is None and (path.stat().st_mtime_ns if path.exists() else 0) == before:
            time.sleep(0.01)  # until it has come to save something, so that every try gets further
        time.sleep(dice.random() * 0.5)
        running.send_signal(signal.SIGKILL)
        running.wait()
        if path.exists():
            load_file(path)  # whole, whenever the process died
    last = start("killed")
    assert last.wait() == 0, last.stderr.read()
    return folder / "killed", folder / "whole"


@pytest.mark.parametrize("kills, steps, amp, threads", [
    (2, 40, "auto", "2"), *(pytest.param(20, 400, amp, threads, marks=pytest.mark.slow)
                            for amp, threads in (("auto", "2"), ("auto", "1"), ("off", "2"), ("off", "1")))])
def test_a_run_killed_again_and_again_ends_with_the_same_weights(faces16, tmp_path, kills, steps, amp, threads):
    killed, whole = killed_again_and_again(tmp_path, faces16, kills, steps, amp, threads)
    assert weights(killed) == weights(whole)
    assert (np.load(killed / "losses.npy") == np.load(whole / "losses.npy")).all()
    assert [line["step"] for line in log(killed)] == [line["step"] for line in log(whole)]
    assert not [path for path in killed.iterdir() if "writing" in path.name]
