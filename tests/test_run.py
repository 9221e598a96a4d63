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
import pytest
from PIL import Image
from safetensors.numpy import load_file

import recipe
import train
from conftest import TINY
from support import files
from training import checkpoint, monitor
from training import run as runs
from training.players import networks_and_adams


def weights(folder):
    return {name: array.tobytes() for name, array in load_file(folder / "checkpoint.safetensors").items()}


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


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
    monkeypatch.setattr(runs, "EARLY_SAMPLES", (1, 4))
    monkeypatch.setattr(runs, "EARLY_SCORES", (2,))
    monkeypatch.setattr(monitor, "MIN_HELD_OUT", 1)
    result = training("--steps", 6, "--sample-every", 3, "--eval-every", 5)
    assert sorted(os.listdir(tmp_path / "run" / "samples")) == [
        "0000_000000.png", "0001_000001.png", "0001_000003.png", "0002_000001.png", "0002_000003.png"]
    assert [line["step"] for line in log(tmp_path / "run")] == [2, 5, 6]
    for line in log(tmp_path / "run"):  # beside each score that of real faces
        assert f"face FD {line['face_fd']:.1f} (real faces: {line['real_face_fd']:.1f})" in result.out
        assert line["real_face_fd"] < line["face_fd"] and line["real_swd"] < line["swd"]


def test_a_run_that_is_cut_off_after_its_first_scores_resumes_there(training, monkeypatch):
    monkeypatch.setattr(runs, "EARLY_SCORES", (2,))
    monkeypatch.setattr(monitor, "MIN_HELD_OUT", 1)
    step = train.Trainer.step

    def fail(self, i, batches):
        if i == 2:
            raise MemoryError
        return step(self, i, batches)

    with monkeypatch.context() as patch:
        patch.setattr(train.Trainer, "step", fail)
        assert training("--steps", 4).status == 1
    assert "resumes at step 2 of 4" in training("--steps", 4).out


def test_a_run_on_the_built_in_faces_stays_out_of_the_way(command, faces16, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = command(train, "--data", faces16, *TINY, "--steps", 1)
    assert os.listdir(tmp_path) == ["Output-builtin"] and "Output-builtin, because" in result.out
    assert result.out.splitlines()[-1].endswith("--n 16 --weights Output-builtin/generator.safetensors")


def test_the_command_that_a_run_ends_with_resumes_it(training, command, tmp_path):
    training("--steps", 1)
    said = training("--fresh", "--steps", 2, "--lr", 1e-3).out
    words = shlex.split(next(line.partition(": ")[2] for line in said.splitlines() if line.startswith("more steps")))
    assert words[:2] == ["python", "train.py"]
    assert f"run: {tmp_path / 'run-2'}, resumes at step 2 of 4" in command(train, *words[2:]).out


def test_epochs_count_passes_over_the_faces(training, tmp_path):
    training("--epochs", 3)
    assert checkpoint.read_facts(tmp_path / "run" / "checkpoint.safetensors")["step"] == 9
    for epochs in (3, 2):
        said = training("--epochs", epochs).out
        assert "9 steps already" in said and "--steps 18" in said and "resumes" not in said
    training("--epochs", 4)
    assert checkpoint.read_facts(tmp_path / "run" / "checkpoint.safetensors")["step"] == 12


@pytest.mark.parametrize("options", ["--d-steps 2 --decay 1", "--preset classic", "--amp off",
                                    "--loss hinge --up resize --no-flip"])
def test_a_resumed_run_has_bitwise_the_weights_of_one_never_interrupted(training, tmp_path, monkeypatch, options):
    def run(name, *arguments):
        return training(*options.split(), *arguments, out=name)

    run("whole", "--steps", 7)
    step = train.Trainer.step
    with monkeypatch.context() as patch:
        patch.setattr(train.Trainer, "step", lambda self, i, batches: (i == 2 and signal.raise_signal(signal.SIGINT),
                                                                       step(self, i, batches))[1])
        assert "the same command resumes it" in run("parts", "--steps", 7).err
    assert "resumes at step 3 of 7" in run("parts", "--steps", 7).out
    assert weights(tmp_path / "whole") == weights(tmp_path / "parts")
    assert (tmp_path / "whole" / "losses.npy").read_bytes() == (tmp_path / "parts" / "losses.npy").read_bytes()
    assert [line["step"] for line in log(tmp_path / "parts")] == [3, 7]
    assert log(tmp_path / "parts")[1]["seconds"] > log(tmp_path / "parts")[0]["seconds"]


def test_lines_and_samples_of_steps_that_a_killed_run_did_not_save_are_deleted(training, tmp_path):
    training("--steps", 2, "--sample-every", 1)
    with open(tmp_path / "run" / "log.jsonl", "a") as file:
        file.write('damaged\n{"step": 100}\n{"step": 2')
    for name in ("0001_000003.png", "0034_000001.png", "0034_000001 (copy).png"):  # of steps 3 and 100, and the user's own
        (tmp_path / "run" / "samples" / name).touch()
    training("--steps", 4)
    assert [line["step"] for line in log(tmp_path / "run")] == [2, 4]
    assert sorted(os.listdir(tmp_path / "run" / "samples")) == [
        "0000_000000.png", "0001_000001.png", "0001_000002.png", "0002_000001.png", "0034_000001 (copy).png"]


def test_a_run_without_its_checkpoint_is_not_written_over(training, tmp_path):
    training("--steps", 2)
    kept = (tmp_path / "run" / "generator.safetensors").read_bytes()
    (tmp_path / "run" / "checkpoint.safetensors").unlink()
    result = training("--steps", 4)
    assert result.status == 2 and "checkpoint.safetensors is missing; add --fresh" in result.err
    assert (tmp_path / "run" / "generator.safetensors").read_bytes() == kept
    assert training("--steps", 4, "--fresh").status == 0


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
    assert result.status == 128 + number and "resumes it" in result.err and signal.getsignal(signal.SIGINT) is handler
    assert checkpoint.read_facts(tmp_path / "run" / "checkpoint.safetensors")["step"] == 3


def test_a_signal_that_comes_while_samples_are_drawn_loses_no_step(training, tmp_path, monkeypatch):
    draw = runs.draw_faces
    calls = []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 2:  # the first are the untrained generator's, the second those of step 2
            os.kill(os.getpid(), signal.SIGTERM)
        return draw(*arguments)

    monkeypatch.setattr(runs, "draw_faces", interrupted)
    assert training("--steps", 50, "--sample-every", 2).status == 128 + signal.SIGTERM
    assert checkpoint.read_facts(tmp_path / "run" / "checkpoint.safetensors")["step"] == 3


def test_checkpoints_are_written_at_epochs_ends_and_every_so_many_steps(training, monkeypatch):
    saved = []
    monkeypatch.setattr(checkpoint, "save_run", lambda path, networks, adams, facts: saved.append(facts["step"]))

    def steps(name, *arguments):
        saved.clear()
        training("--steps", 10, *arguments, out=name)
        return saved

    assert steps("a", "--save-every", 4) == [4, 8, 10]  # epochs of 3 steps are too short for one each
    monkeypatch.setattr(runs, "LOG_EVERY", 2)
    assert steps("b") == [3, 6, 9, 10]


def test_two_at_once_do_not_write_into_one_run(training, tmp_path):
    (tmp_path / "run").mkdir()
    with files.claim(tmp_path / "run"):
        result = training("--steps", 1)
    assert result.status == 2 and "another command is writing" in result.err and not os.listdir(tmp_path / "run")


def test_options_are_written_before_the_first_step(training, tmp_path, monkeypatch):
    def look(*_):
        assert (tmp_path / "run" / "options.json").exists() and (tmp_path / "run" / "samples" / "0000_000000.png").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(train.Trainer, "step", look)
    assert training("--steps", 1).status == 130


def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(training, tmp_path, monkeypatch):
    training("--steps", 2)
    before = weights(tmp_path / "run")
    step = train.Trainer.step
    monkeypatch.setattr(train.Trainer, "step", lambda *arguments: (paddle.to_tensor(math.nan), *step(*arguments)[1:]))
    result = training("--steps", 4)
    assert result.status == 1 and "finite" in result.err and "--lr" in result.err
    assert weights(tmp_path / "run") == before


def test_weights_that_are_not_finite_are_not_saved(training, players_and_recipe, tmp_path):
    training("--steps", 2)
    path = tmp_path / "run" / "checkpoint.safetensors"
    before = path.read_bytes()
    players, _ = players_and_recipe()
    weight = players.D.network.parameters()[0]
    weight.set_value(paddle.full_like(weight, math.inf))
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


def test_a_checkpoint_that_is_not_one(training, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.safetensors").write_bytes(b"\x80\x04 not a checkpoint")
    result = training("--steps", 1)
    assert result.status == 2 and "checkpoint.safetensors" in result.err and "--fresh" in result.err


def test_suspicions_outlive_an_interruption(training, monkeypatch):
    monkeypatch.setattr(runs, "LOG_EVERY", 1)
    monkeypatch.setattr(monitor, "ALIKE_THRESHOLD", -10)  # whatever faces are drawn
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


def test_a_run_is_long_enough_for_faces():
    for line, steps_per_epoch, steps in (("", 6, 1500), ("", 12_000, 96_000), ("--epochs 8", 6, 48), ("--steps 7", 6, 7),
                                         ("--steps 7 --epochs 9", 6, 7)):
        assert runs.total_steps(recipe.parse_options(typed=line.split()), steps_per_epoch) == steps


def test_samples_and_scores_are_due_early_and_then_regularly():
    def steps(early, every):
        return [step for step in range(1, 8001) if runs.due(step, early, every)]

    assert steps(recipe.EARLY_SAMPLES, 500)[:5] == [50, 100, 200, 500, 1000]
    assert steps(recipe.EARLY_SCORES, 4000) == [500, 1000, 2000, 4000, 8000]


def test_built_in_faces_have_a_folder_of_their_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for typed, sources, folder in (([], [runs.BUILTIN], "Output-builtin"), ([], ["img_align_celeba.zip"], "Output"),
                                   (["--out", "here"], [runs.BUILTIN], "here")):
        reader = SimpleNamespace(manifest={"sources": sources})
        with runs.own_folder(recipe.parse_options(typed=typed), reader) as own:
            assert own == Path(folder) and own.is_dir()
        assert ("Output-builtin" in capsys.readouterr().out) == (folder == "Output-builtin")


def test_what_to_type_to_resume():
    for typed, wanted in (("", ""), ("--steps 5 --lr 1e-3", "--lr 1e-3"), ("--epochs=5 --no-flip", "--no-flip"),
                          ("--out a --data b", "--out a --data b"), ("--fresh", "--out 'new run'"),
                          ("--out a --fresh --data b --out=c", "--data b --out 'new run'")):
        assert runs.resume_command("new run", 9, typed.split()) == " ".join(f"python train.py {wanted} --steps 9".split())


def test_large_faces_are_scored_too():
    """The larger the faces, the fewer are scored, but never so few that they are not scored at all."""
    for size, held_out in ((64, 1000), (128, 250), (256, monitor.MIN_HELD_OUT)):
        reader = SimpleNamespace(faces=np.zeros([1, 1, 1, 3], np.uint8), rows=np.zeros(1, int), size=size, __len__=None)
        reader = type("Reader", (), {**vars(reader), "__len__": lambda self: 1,
                                     "held_out_faces": lambda self, most: np.zeros([most, 1, 1, 3], np.uint8)})()
        reals = monitor.RealFaces(reader)
        assert len(reals.held_out) == held_out and reals.enough


def test_another_seed_is_another_run(training, tmp_path):
    for seed in (0, 1):
        training("--steps", 1, "--seed", seed, out=str(seed))
    assert weights(tmp_path / "0") != weights(tmp_path / "1")
