"""Whether the attributes that a conditional generator is asked for are there, by a classifier of real faces."""
import json
import math

import numpy as np
import pytest

import evaluate
from scoring.conditional import attribute_accuracy
from training import checkpoint
from zoo import Plan, build_generator

PLAN = Plan(size=16, z_dim=8, channels=4, labels={name: [1, -1] for name in ("Bright", "Rare", "Always")})


@pytest.fixture
def packed(tmp_path):
    """120 packed faces, 60 of them held out; every second is Bright, no held-out one is Rare, and all are Always so."""
    numbers, bright = np.random.default_rng(0), np.arange(120) % 2
    faces = (numbers.integers(0, 100, (120, 16, 16, 3)) + 150 * bright[:, None, None, None]).astype(np.uint8)
    np.save(tmp_path / "faces.npy", faces)
    np.save(tmp_path / "labels.npy", np.stack([bright, np.arange(120) < 5, np.ones(120)], axis=1).astype(np.int8) * 2 - 1)
    (tmp_path / "manifest.json").write_text(json.dumps({
        "size": 16, "crop": "auto", "sources": ["a"], "names": [f"{i}.png" for i in range(120)],
        "held_out": list(range(60, 120)), "attributes": list(PLAN.labels)}))
    return tmp_path


def test_attributes_are_told_apart_on_real_faces_and_drawn_ones(packed):
    readers = [evaluate.DataReader(packed, 1, split=split, conditional="Bright") for split in ("train", "heldout")]
    shares = attribute_accuracy(build_generator(PLAN._replace(labels={"Bright": [1, -1]})), *readers, updates=100, faces=20)
    assert min(shares["Bright"]["real, with"], shares["Bright"]["real, without"]) > 0.95
    assert shares["Bright"]["drawn, with"] + shares["Bright"]["drawn, without"] == pytest.approx(1, abs=0.2)  # it is untrained


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_an_attribute_that_no_held_out_face_has_is_left_out(packed, tmp_path, command):
    """A share of no faces is no number, and NaN is no JSON."""
    checkpoint.save_generator(tmp_path / "weights.safetensors", build_generator(PLAN), {
        **PLAN._asdict(), "where": "", "pictures": "", "data": "", "step": 1, "images_seen": 1, "seed": 0, "scores": {}})
    result = command(evaluate, "--device", "cpu", "--fake", tmp_path / "weights.safetensors", "--real", packed, "--n", 20,
                     "--out", tmp_path / "out")
    assert result.status == 0, result.err
    note, = (line for line in result.out.splitlines() if "not judged" in line)
    assert "Rare, Always" in note and "Bright" not in note
    written = json.loads((tmp_path / "out" / "scores.json").read_text(), parse_constant=lambda text: pytest.fail(text))
    assert list(written["attributes"]) == ["Bright"] and all(map(math.isfinite, written["attributes"]["Bright"].values()))
