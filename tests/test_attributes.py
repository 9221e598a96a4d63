"""Labels: packed, used to choose faces, learned, and asked for."""
import json

import numpy as np
import paddle
import paddle.nn as nn
import pytest
from PIL import Image
from safetensors.numpy import load_file

import evaluate
import generator
import network
import pretreat
import train
from dataReader import DataReader
from zoo import Plan, build_discriminator


@pytest.fixture
def packed(tmp_path, command):
    """80 pictures of 16 px: bright ones, labelled Bright, and dark ones; every fourth is Odd. One more has no labels."""
    (tmp_path / "photos").mkdir()
    numbers = np.random.default_rng(0)
    lines = ["80", "Bright Odd"]
    for i in range(80):
        pixels = numbers.integers(150, 250, (16, 16, 3)) if i % 2 else numbers.integers(0, 100, (16, 16, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photos" / f"{i:02d}.png")
        lines.append(f"{i:02d}.png  {1 if i % 2 else -1} {1 if i % 4 == 0 else -1}")
    Image.new("RGB", (16, 16)).save(tmp_path / "photos" / "unknown.png")
    (tmp_path / "list.txt").write_text("\n".join(lines) + "\n")
    result = command(pretreat, "--input", tmp_path / "photos", "--attributes", tmp_path / "list.txt", "--size", 16,
                     "--holdout", 0.3, "--out", tmp_path / "imgs")
    assert result.status == 0, result.err
    return tmp_path / "imgs"


def test_labels_are_packed(packed):
    manifest = json.loads((packed / "manifest.json").read_text())
    faces, labels = np.load(packed / "faces.npy"), np.load(packed / "labels.npy")
    assert manifest["attributes"] == ["Bright", "Odd"] and labels.shape == (80, 2) and labels.dtype == np.int8
    assert ((faces.mean(axis=(1, 2, 3)) > 125) == (labels[:, 0] > 0)).all()
    [skipped] = manifest["skipped"]
    assert skipped["name"] == "unknown.png" and "list.txt" in skipped["reason"]


def test_batches_have_the_labels_of_their_faces(packed):
    reader = DataReader(packed, 8, conditional="Odd,Bright")
    batches = reader.batches()
    for _ in range(10):
        faces, labels = next(batches)
        assert labels.shape == [8, 2] and ((faces.mean([1, 2, 3]) > 0) == (labels[:, 1] > 0)).all()
    sample = reader.label_sample()
    assert list(sample) == ["Odd", "Bright"] and len(sample["Odd"]) == len(reader)
    assert not any(odd == bright == 1 for odd, bright in zip(sample["Odd"], sample["Bright"]))  # no face is both


def test_a_subset_is_all_that_has_the_attributes(packed):
    for split in ("train", "heldout"):
        reader = DataReader(packed, 4, split=split, where="Bright=-1,Odd=1")
        assert len(reader) and all(int(reader.manifest["names"][row][:2]) % 4 == 0 for row in reader.rows)
    assert (reader.held_out_faces(100) == reader.faces[reader.rows]).all()


def test_a_conditional_run_draws_what_is_asked(packed, command, tmp_path):
    result = command(train, "--device", "cpu", "--data", packed, "--out", tmp_path / "run", "--channels", 4, "--z-dim", 8,
                     "--conditional", "Bright", "--lr", 1e-3, "--ema", 500, "--steps", 150)
    assert result.status == 0, result.err
    weights = tmp_path / "run" / "generator.safetensors"

    def brightness(*arguments):
        result = command(generator, "--weights", weights, "--n", 8, "--out", tmp_path / "drawn", *arguments)
        assert result.status == 0 and "conditional on Bright" in result.out
        return np.array([np.asarray(Image.open(path)).mean() for path in sorted((tmp_path / "drawn").glob("seed*"))])

    bright, dark, either = brightness("--attr", "Bright=1"), brightness("--attr", "Bright=-1"), brightness()
    assert bright.min() > dark.max() + 40
    assert (np.minimum(abs(either - bright), abs(either - dark)) == 0).all()  # a seed decides what is not asked for
    assert command(generator, "--weights", weights, "--attr", "Brigt=1").err.count("perhaps Bright?") == 1

    result = command(evaluate, "--fake", weights, "--real", packed, "--out", tmp_path / "evaluation")
    shares = json.loads((tmp_path / "evaluation" / "scores.json").read_text())["attributes"]["Bright"]
    assert result.status == 0 and len(shares) == 4 and min(shares.values()) > 0.95
    assert (tmp_path / "evaluation" / "attributes.png").exists()


def test_weights_of_a_subset_are_scored_against_it(packed, command, tmp_path, monkeypatch):
    run = tmp_path / "run"
    command(train, "--device", "cpu", "--data", packed, "--out", run, "--channels", 1, "--steps", 1, "--where", "Bright=1")
    seen, genuine = [], evaluate.metrics.baselines
    monkeypatch.setattr(evaluate.metrics, "baselines", lambda faces, *others: seen.append(faces) or genuine(faces, *others))
    monkeypatch.setattr(evaluate, "MIN_FACES", 5)
    result = command(evaluate, "--fake", run / "generator.safetensors", "--real", packed, "--out", tmp_path / "evaluation")
    assert result.status == 0 and "with Bright=1" in result.out and seen[0].mean(axis=(1, 2, 3)).min() > 125


@pytest.mark.parametrize("options", [
    "--loss hinge", "--loss softmax --label-smoothing 0.1", "--arch dcgan5x5"])
def test_labels_go_with_every_recipe(packed, command, tmp_path, options):
    for steps in (1, 2):
        result = command(train, "--device", "cpu", "--data", packed, "--out", tmp_path / "run", "--channels", 2, "--steps", steps,
                         "--conditional", "Bright,Odd", *options.split())
        assert result.status == 0, result.err
    assert np.isfinite(np.load(tmp_path / "run" / "losses.npy")).all()


def test_a_projection_is_added_to_the_logit():
    """Miyato & Koyama 2018, equation 4, with the features summed over the map."""
    paddle.seed(0)
    plain = build_discriminator(Plan(size=16, channels=2), "bce")
    conditional = network.ConditionalDiscriminator(plain, 3)
    pictures, labels = paddle.rand([5, 3, 16, 16]), paddle.to_tensor([[1.0, -1.0, 1.0]] * 5)
    plain.eval()
    features = nn.Sequential(*list(plain)[:-1])(pictures).numpy()
    added = (features.sum(axis=(2, 3)) * (labels.numpy() @ conditional.projection.weight.numpy())).sum(axis=1)
    assert np.allclose(conditional(pictures, labels).numpy(), plain(pictures).numpy() + added, atol=1e-5)


def test_a_run_resumes_only_with_the_same_labels(packed, command, tmp_path):
    def run(*arguments):
        return command(train, "--device", "cpu", "--data", packed, "--out", tmp_path / "run", "--channels", 1, "--batch", 8,
                       *arguments)

    assert run("--steps", 2, "--conditional", "Bright").status == 0
    assert "--conditional (it has Bright, you ask for none)" in run("--steps", 3).err
    assert "--where" in run("--steps", 3, "--conditional", "Bright", "--where", "Odd=1").err
    assert run("--steps", 3, "--conditional", " Bright").status == 0
    labels = np.load(packed / "labels.npy")
    np.save(packed / "labels.npy", -labels)
    assert "other labels" in run("--steps", 4, "--conditional", "Bright").err
    assert "generator.deconv1.weight" in load_file(tmp_path / "run" / "checkpoint.safetensors")


@pytest.mark.parametrize("content, said", [
    ("", "is not a list"), ("2\n", "is not a list"), ("many\nBright\n", "is not a list"),
    ("1\nBright Odd\n00.png 1\n", "line 3"), ("1\nBright\n00.png yes\n", "line 3"), ("1\nBright\nother.png 1\n", "names none"),
    ("1\nBright Bright\n00.png 1 1\n", "an attribute twice"), ("1\nBright\n00.png 1\n00.png -1\n", "for the second time"),
    ("1\na{b}\n00.png 1\n", "a name has letters")])
def test_an_invalid_list(tmp_path, command, content, said):
    Image.new("RGB", (16, 16)).save(tmp_path / "00.png")
    (tmp_path / "list.txt").write_text(content)
    result = command(pretreat, "--input", tmp_path, "--attributes", tmp_path / "list.txt", "--out", tmp_path / "imgs")
    assert result.status == 2 and said in result.err and "list.txt" in result.err and not (tmp_path / "imgs").exists()


@pytest.mark.parametrize("arguments, said", [
    (("--where", "Bright"), "Smiling=1"), (("--where", "Bright=2"), "Smiling=1"), (("--where", "Brihgt=1"), "perhaps Bright?"),
    (("--conditional", "Bright,Evn"), "There are: Bright, Odd"), (("--where", "Odd=1,Odd=-1"), "both ways"),
    (("--where", "Bright=1,Odd=1"), "no face")])
def test_attributes_that_are_not_there(packed, command, tmp_path, arguments, said):
    result = command(train, "--data", packed, "--out", tmp_path / "run", *arguments)
    assert result.status == 2 and said in result.err and arguments[0] in result.err and not (tmp_path / "run").exists()


def test_faces_without_labels(faces16, command, tmp_path):
    result = command(train, "--data", faces16, "--out", tmp_path / "run", "--conditional", "Bright")
    assert result.status == 2 and "pretreat.py --attributes" in result.err
