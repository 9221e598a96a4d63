import json
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from PIL import Image

import evaluate
import pictures
import pretreat
import train
from intake.photos import Crop
from intake.sources import BUILTIN
from support import figures
from training import checkpoint, monitor
from zoo import Plan, build_generator

FACTS = {"arch": "dcgan", "size": 16, "z_dim": 8, "channels": 4, "up": "deconv", "noise": "normal", "labels": {},
         "where": "", "pictures": "", "step": 1, "images_seen": 1, "data": "nothing", "seed": 0,
         "scores": {"swd": 12.3, "ms_ssim": 0.25, "n": 30}}
SETS = ["generated", "real faces", "PCA faces", "blurred faces", "random generator", "noise"]


@pytest.fixture(scope="module")
def halved(tmp_path_factory):
    """A hundred small faces at 16 px, about half of them held out."""
    folder = tmp_path_factory.mktemp("halved")
    options = SimpleNamespace(size=16, crop=Crop(), workers=2, holdout=0.5, attributes=None)
    pretreat.pack(pictures.small_faces(), [BUILTIN], folder, options)
    return folder


@pytest.fixture
def evaluation(command, halved, tmp_path):
    """evaluation("--fake", path) → result, and the scores that it wrote, if any."""

    def run(*arguments):
        result = command(evaluate, "--real", halved, "--out", tmp_path / "evaluation", "--device", "cpu", *arguments)
        written = tmp_path / "evaluation" / "scores.json"
        return result, json.loads(written.read_text()) if result.status == 0 else None

    return run


@pytest.fixture
def run(command, halved, tmp_path):
    """A run of three steps on the faces in `halved`."""
    command(train, "--data", halved, "--out", tmp_path / "run", "--device", "cpu", "--channels", 4, "--steps", 3)
    return tmp_path / "run"


def training_faces(halved):
    manifest = json.loads((halved / "manifest.json").read_text())
    return np.delete(np.load(halved / "faces.npy"), manifest["held_out"], axis=0)


def test_a_run_is_scored_beside_the_baselines_and_repeats_exactly(evaluation, run, tmp_path):
    result, written = evaluation("--fake", run / "generator.safetensors", "--n", 30)
    assert result.status == 0 and "scores of so few faces are noisy" in result.out and "trained 3 steps" in result.out
    assert list(written["scores"]) == SETS and written["n"] == 30
    assert all(name in result.out for name in SETS) and "scores of 30 faces" in result.out
    assert set(written["scores"]["generated"]) == {
        "face_fd", "precision", "recall", "density", "coverage", "swd_16", "swd_mean", "ms_ssim", "two_sample",
        "two_sample_error", "nearest", "nearest_1%"}
    assert 0.5 < written["scores"]["real faces"]["nearest"] < 2  # to other training faces
    assert set(written["discriminator is right"]) == {"training faces", "held-out faces", "generated"}
    assert min(Image.open(tmp_path / "evaluation" / "report.png").size) > 1000
    result, again = evaluation("--fake", run / "generator.safetensors", "--n", 30)
    assert again == written and "do not compare" not in result.out
    assert result.err == ""  # no bar in a log file


def test_scores_of_another_number_of_faces_are_pointed_out(evaluation, tmp_path):
    weights = tmp_path / "weights.safetensors"
    checkpoint.save_generator(weights, build_generator(Plan(size=16, z_dim=8, channels=4)), FACTS)
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "scores.json").write_text('{"n": 40}')
    result, written = evaluation("--fake", weights, "--n", 20)
    assert all(f"are of {number} faces, these of 20: do not compare" in result.out for number in (30, 40))
    assert written["scores in the weights' file"] == FACTS["scores"]


def test_a_damaged_checkpoint_is_found_before_the_work_and_can_be_moved_away(evaluation, run, tmp_path):
    saved, whole = run / "checkpoint.safetensors", (run / "checkpoint.safetensors").read_bytes()
    numbers = 8 + int.from_bytes(whole[:8], "little")  # where they begin
    for content in (whole[:5000], whole[:numbers] + bytes(len(whole) - numbers), b"damaged"):
        saved.write_bytes(content)
        result, _ = evaluation("--fake", run / "generator.safetensors")
        assert result.status == 2 and f"{saved}: not a readable" in result.err
        assert "; move it away, and the weights are scored" in result.err
        assert result.err.count("\n") == 1 and "--fresh" not in result.err  # which is an option of train.py
        assert not (tmp_path / "evaluation").exists()
    saved.unlink()
    result, written = evaluation("--fake", run / "generator.safetensors", "--n", 20)
    assert result.status == 0 and written["discriminator is right"] == {}


def test_a_runs_discriminator_judges_the_faces_of_its_own_generator_alone(run, halved):
    """Not those of other weights that lie beside it, nor pictures."""
    training = evaluate.DataReader(halved, 1)
    shutil.copy(run / "generator.safetensors", run / "other.safetensors")
    shutil.copy(halved / "faces.npy", run / "faces.npy")
    (run / "best").mkdir()
    Image.new("RGB", (16, 16)).save(run / "best" / "a.png")
    for name, judged in (("generator.safetensors", True), ("other.safetensors", False), ("faces.npy", False), ("best", False)):
        assert bool(evaluate.open_discriminator(evaluate.open_fakes(run / name), training)) == judged, name


def test_a_discriminator_that_judges_a_face_several_times_has_one_verdict():
    """Of three faces it is sure of the first twice, and doubts it twice; it doubts the others."""
    sure = paddle.to_tensor([5.0, -2, -2, 5, -2, -2, -1, -2, -2, -1, -2, -2])
    faces = dict.fromkeys(("real faces", "held out", "generated"), np.zeros((3, 64, 64, 3), np.uint8))
    right = evaluate.judge_discriminator(lambda pictures: sure, faces)
    assert right == pytest.approx({"training faces": 1 / 3, "held-out faces": 1 / 3, "generated": 2 / 3})


def test_scores_are_written_before_an_extra_fails(evaluation, run, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(evaluate, "judge_discriminator", fail)
    result, _ = evaluation("--fake", run / "generator.safetensors", "--n", 20)
    assert result.status == 1 and "no such operator" in result.err and result.err.count("\n") == 1
    assert list(json.loads((tmp_path / "evaluation" / "scores.json").read_text())["scores"]) == SETS
    assert (tmp_path / "evaluation" / "report.png").exists()


def copies(folder, halved):
    """A folder of thirty training faces, four times as large."""
    folder.mkdir()
    for i, face in enumerate(training_faces(halved)[:30]):
        figures.save_picture(folder / f"{i}.png", face.repeat(4, axis=0).repeat(4, axis=1))
    return folder


def test_the_current_folder_is_scored_with_a_bar_on_a_terminal(evaluation, halved, tmp_path, monkeypatch):
    monkeypatch.chdir(copies(tmp_path / "copies", halved))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    result, written = evaluation("--fake", ".", "--n", 20)
    assert "scoring: 100%" in result.err and written["n"] == 20 and written["discriminator is right"] == {}


def test_copied_pictures_of_any_size_are_found(evaluation, halved, tmp_path):
    """In a folder whose name is no formula, among files that are no pictures."""
    folder = copies(tmp_path / "copies $^$", halved)
    for i in range(6):
        (folder / f"broken{i}\x1b[31m.png").write_bytes(b"no picture")
    result, written = evaluation("--fake", folder)
    assert "skipped broken0\\x1b" in result.out and "\x1b" not in result.out
    assert result.out.count("skipped") == evaluate.MAX_NAMED + 1 and "3 more of 36" in result.out
    assert written["n"] == 30
    assert written["scores"]["generated"]["nearest"] < 0.3 < 0.6 < written["scores"]["noise"]["nearest"]


def test_packed_faces_are_scored(evaluation, halved, tmp_path):
    np.save(tmp_path / "faces.npy", training_faces(halved))
    _, written = evaluation("--fake", tmp_path / "faces.npy", "--n", 20)
    assert written["n"] == 20 and written["scores"]["generated"]["nearest"] == 0


def test_weights_that_may_have_seen_the_held_out_faces(command, evaluation, faces16, tmp_path):
    command(train, "--data", faces16, "--out", tmp_path / "run", "--device", "cpu", "--channels", 4, "--steps", 1)
    result, written = evaluation("--fake", tmp_path / "run" / "generator.safetensors", "--n", 20)
    assert "may be too good" in result.out and not written["weights were trained on the rest of these faces"]
    assert written["discriminator is right"] == {}


def test_faces_too_small_for_scores(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    command(pretreat, "--size", 12, "--holdout", 0.5, "--limit", 60)
    result = command(evaluate, "--fake", "imgs/faces.npy", "--device", "cpu")
    assert result.status == 2 and "12 px" in result.err and "--size 64" in result.err


@pytest.mark.parametrize("arguments, words", [
    (["--fake", "nothing"], ["--fake nothing", "no such"]),
    (["--fake", "missing.npy"], ["missing.npy", "no such file"]),
    (["--fake", ""], ["--fake", "empty name"]),
    (["--fake", "folder.npy"], ["--fake folder.npy", "cannot be read", "irectory"]),
    (["--out", "few.npy"], ["--out few.npy", "no folder"]),
    (["--fake", "small.npy"], ["small.npy", "8 px", "16", "--size"]),
    (["--fake", "floats.npy"], ["floats.npy", "float64"]),
    (["--fake", "three"], ["three", "3 faces are too few", "20"]),
    (["--fake", "few.npy"], ["few.npy", "5 faces are too few"]),
    (["--n", "5"], ["--n", "at least 20"]),
    (["--inception", "wrong.pth"], ["wrong.pth"]),
])
def test_bad_input_gets_a_sentence(evaluation, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.pth").write_bytes(b"not the weights")
    np.save("small.npy", np.zeros((40, 8, 8, 3), np.uint8))
    np.save("floats.npy", np.zeros((40, 16, 16, 3)))
    np.save("blank.npy", np.zeros((40, 16, 16, 3), np.uint8))
    np.save("few.npy", np.zeros((5, 16, 16, 3), np.uint8))
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "three").mkdir()
    for i in range(3):
        Image.new("RGB", (16, 16)).save(f"three/{i}.png")
    result, _ = evaluation(*(arguments if "--fake" in arguments else ["--fake", "blank.npy", *arguments]))
    assert result.status == 2 and result.err.count("\n") == 1 and all(word in result.err for word in words), result.err
    assert not (tmp_path / "evaluation").exists()


def test_too_few_held_out_faces(command, faces16, tmp_path):
    result = command(evaluate, "--real", faces16, "--fake", faces16 / "faces.npy", "--out", tmp_path / "out")
    assert result.status == 2 and "--holdout" in result.err and "3" in result.err


def test_training_scores_itself_and_keeps_the_best(command, halved, tmp_path, monkeypatch):
    face_fd = iter([5.0, 3.0, 4.0])
    monkeypatch.setattr(evaluate.metrics, "quick_scores", lambda *_: {
        "face_fd": next(face_fd), "swd": 9.0, "ms_ssim": 0.25, "n": 50})
    monkeypatch.setattr(monitor, "MIN_HELD_OUT", 20)

    def steps(count):
        return command(train, "--data", halved, "--out", tmp_path / "run", "--device", "cpu", "--channels", 4, "--eval-every", 2,
                       "--steps", count)

    assert "face FD 3.0" in steps(4).out
    steps(6)  # worse, and in another process
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["face_fd"]) for line in lines] == [(2, 5), (4, 3), (6, 4)]
    _, best = checkpoint.load_generator(tmp_path / "run" / "best.safetensors")
    _, latest = checkpoint.load_generator(tmp_path / "run" / "generator.safetensors")
    assert (best["step"], best["scores"]["face_fd"], latest["step"], latest["scores"]["face_fd"]) == (4, 3, 6, 4)
