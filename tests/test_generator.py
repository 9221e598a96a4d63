import errno
import os
import pickle

import numpy as np
import pytest
from PIL import Image

import generator
import network
import train
from training import checkpoint
from training.randomness import face_inputs
from training.weights import PRETRAINED
from zoo import Plan, build_generator

FACTS = {"arch": "dcgan", "size": 16, "z_dim": 8, "channels": 4, "up": "deconv", "noise": "normal", "labels": {}, "where": "",
         "pictures": "aa", "step": 1500, "images_seen": 96000, "data": "9 faces from a.zip", "seed": 0, "scores": {}}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "generator.safetensors"
    checkpoint.save_generator(path, build_generator(Plan(size=16, z_dim=8, channels=4)), FACTS)
    return path


def drawn(folder):
    return {name: np.asarray(Image.open(folder / name)) for name in os.listdir(folder) if name.startswith("seed")}


def same(some, others):
    return some.keys() == others.keys() and all((some[name] == others[name]).all() for name in some)


def test_a_face_is_a_seed(weights, tmp_path, command):
    def draw(name, *arguments):
        result = command(generator, "--weights", weights, "--out", tmp_path / name, *arguments)
        assert result.status == 0 and "trained 1,500 steps (96,000 images seen) on 9 faces from a.zip" in result.out
        return drawn(tmp_path / name)

    many = draw("many", "--n", 30)
    assert len(many) == 30 and len({face.tobytes() for face in many.values()}) == 30
    assert same(draw("small batches", "--n", 30, "--batch", 7), many)
    some = {f"seed{seed:04d}.png": many[f"seed{seed:04d}.png"] for seed in (3, 17, 18, 19)}
    assert same(draw("list", "--seeds", "17-19,3"), some)
    assert same(draw("from", "--seed", 28, "--n", 2), {name: many[name] for name in ("seed0028.png", "seed0029.png")})
    pixels = np.asarray(Image.open(tmp_path / "list" / "grid.png"))
    assert pixels.shape == (32, 32, 3) and (pixels[16:, 16:] == some["seed0003.png"]).all()


@pytest.mark.parametrize("arguments, words", [
    (["--weights", "missing.safetensors"], ["missing.safetensors", "no such file", "train.py"]),
    (["--weights", "pickle.safetensors"], ["pickle.safetensors", "not a readable"]),
    (["--weights", "cut.safetensors"], ["cut.safetensors", "not a readable"]),
    (["--weights", "other.safetensors"], ["other.safetensors", "do not say which generator"]),
    (["--n", "0"], ["--n", "at least 1", "'0'"]),
    (["--seeds", "5-2"], ["--seeds", "0,4-6", "'5-2'"]),
    (["--n", "3", "--seeds", "1"], ["--seeds", "--n"]),
    (["--seed", "3", "--seeds", "1"], ["--seed goes with --n"]),
    (["--export", "model", "--device", "gpu"], ["--export computes on the CPU", "leave out --device gpu"]),
    (["--photo", "me.jpg", "--save-z", "z.npy"], ["--photo", "--save-z"]),
    (["--save-z", "z.png"], ["--save-z", ".npy"]),
    (["--nonsense"], ["--nonsense"]),
])
def test_bad_input_gets_a_sentence(weights, tmp_path, command, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pickle.safetensors").write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / "cut.safetensors").write_bytes(weights.read_bytes()[:-50])
    checkpoint.write_tensors(tmp_path / "other.safetensors", {"a": np.zeros(3, "float32")}, {"format": "pt"})
    result = command(generator, *arguments)
    assert result.status == 2 and result.err.count("\n") == 1 and all(word in result.err for word in words)


def test_a_disk_that_is_full_before_the_last_face(weights, tmp_path, command, monkeypatch):
    def save_picture(path, _):
        if path.name == "seed0009.png":
            raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(generator.figures, "save_picture", save_picture)
    result = command(generator, "--weights", weights, "--out", tmp_path, "--n", 10, "--batch", 4)
    assert result.status == 1 and "the disk is full" in result.err


def test_training_saves_weights_that_can_be_loaded(faces16, tmp_path, command):
    command(train, "--data", faces16, "--out", tmp_path, "--channels", 4, "--steps", 1, "--device", "cpu")
    loaded, facts = checkpoint.load_generator(tmp_path / "generator.safetensors")
    assert facts["step"] == 1 and facts["images_seen"] == 16 and not loaded.training


def test_which_weights_are_the_default(weights, tmp_path, command, monkeypatch):
    """The run's best before its latest, and the pretrained ones where there is no run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("training.weights.PRETRAINED", tmp_path / "pretrained.safetensors")
    result = command(generator)
    assert result.status == 2 and "train.py" in result.err and "--weights" in result.err
    for name in ("pretrained.safetensors", "Output/generator.safetensors", "Output/best.safetensors"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        made = build_generator(Plan(size=16, z_dim=8, channels=4))
        checkpoint.save_generator(path, made, {**FACTS, "data": name, "scores": {"face_fd": 12.34, "n": 50}})
        result = command(generator, "--n", 1)
        assert result.status == 0 and f"on {name}, seed 0, face FD 12.3 against 50 held-out faces" in result.out


def test_a_generator_that_resizes_is_rebuilt(tmp_path):
    path = tmp_path / "resize.safetensors"
    made = build_generator(Plan(size=16, z_dim=8, channels=4, up="resize"))
    checkpoint.save_generator(path, made, {**FACTS, "up": "resize"})
    loaded, _ = checkpoint.load_generator(path)
    z = face_inputs(loaded.plan, range(3))
    assert (network.draw_faces(loaded, z) == network.draw_faces(made, z)).all()


@pytest.mark.parametrize("size", [64, 128])
def test_the_pretrained_generators(size):
    loaded, facts = checkpoint.load_generator(PRETRAINED.with_name(f"celeba{size}.safetensors"))
    assert loaded.size == size and facts["scores"]["swd"] < 32  # half the distance of PCA faces, see docs/recipe.md
    assert sum(path.stat().st_size for path in PRETRAINED.parent.iterdir() if path.is_file()) < 16 * 2 ** 20
    faces = network.draw_faces(loaded, face_inputs(loaded.plan, range(16))).astype(int)
    assert abs(faces[:8] - faces[8:]).mean() > 20 and faces.std(axis=0).mean() > 20  # pictures that differ, not one face or grey


def test_pretrained_weights_have_names(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = command(generator, "--n", 1, "--weights", "celeba64")
    assert result.status == 0 and f"{PRETRAINED}: dcgan, 64×64 px" in result.out
    for name in ("celeba65", "../pretrained/celeba64", ""):
        result = command(generator, "--n", 1, "--weights", name)
        assert result.status == 2 and result.err.count("\n") == 1
    (tmp_path / "celeba64").write_bytes(b"a file of one's own")
    assert "not a readable .safetensors file" in command(generator, "--weights", "celeba64").err
