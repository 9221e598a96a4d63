"""The other networks: built as published, trained, sampled and gone on with by their names alone."""
import json
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

import evaluate
import generator
import pictures
import pretreat
import train
import zoo
from intake.photos import Crop
from intake.sources import BUILTIN
from training.checkpoint import read_facts
from zoo import Plan, build_discriminator, build_generator

SIZES = {"fakeface128": 128, "dcgan5x5": 48, "tanh-upsample64": 64, "upsample48": 48, "dcgan28": 28}


def built(arch, channels=64, loss="bce"):
    plan = Plan(arch, SIZES[arch], channels=channels)
    return build_generator(plan), build_discriminator(plan, loss)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """packed(48) is a folder of a hundred small faces, packed at that size."""
    def pack(size):
        folder = tmp_path_factory.mktemp("data") / "imgs"
        folder.mkdir()
        options = SimpleNamespace(size=size, crop=Crop(), workers=2, holdout=0.25, attributes=None)
        pretreat.pack(pictures.small_faces(), [BUILTIN], folder, options)
        return folder

    return pack


def layer(kernel, *widths, biases=1):
    """The parameters of a convolution, or of a dense layer, which is one with a kernel of 1, and the like in a row."""
    return sum(kernel ** 2 * before * after + biases * after for before, after in zip(widths, widths[1:]))


def norm(*widths):
    """Those of batch normalisation: scale, shift, and two running statistics."""
    return 4 * sum(widths)


@pytest.mark.parametrize("arch, in_generator, in_discriminator", [
    ("tanh-upsample64", 34_031_363, 25_901_953),
    ("fakeface128",
     layer(4, 100, 2048, 1024, 1024, 768, biases=0) + layer(3, 768, 512, biases=0) + layer(4, 512, 512, 3, biases=0)
     + norm(2048, 1024, 1024, 768, 512, 512),
     layer(4, 3, 128, 256, 385, 768, 1024, 512, biases=0) + norm(256, 385, 768, 1024, 512) + layer(1, 512 * 2 * 2, 2)),
    ("dcgan5x5",
     layer(1, 100, 512 * 3 * 3) + layer(5, 512, 256, 128, 64, 3) + norm(512, 256, 128, 64),
     layer(5, 3, 64, 128, 256, 512) + norm(128, 256, 512) + layer(1, 512 * 3 * 3, 1)),
    ("upsample48",
     layer(1, 100, 512 * 6 * 6) + layer(5, 512, 256, 128, 64, 3) + norm(256, 128, 64),
     layer(5, 3, 64, 128, 256, 512) + norm(128, 256, 512) + layer(1, 512 * 7 * 7, 1)),
    ("dcgan28",
     layer(1, 100, 1024 * 4 * 4) + layer(4, 1024, 512) + layer(5, 512, 256, 3) + norm(1024, 512, 256),
     layer(5, 3, 64, 128, 256) + norm(128, 256) + layer(1, 256 * 4 * 4, 1))])
def test_parameters_are_those_of_the_sources(arch, in_generator, in_discriminator):
    """Counted as Keras counts: with the running statistics of batch normalisation."""
    networks = built(arch, loss="softmax" if arch == "fakeface128" else "bce")
    for network, parameters in zip(networks, (in_generator, in_discriminator)):
        assert sum(weight.size for weight in network.state_dict().values()) == parameters


def test_65536_parameters_of_tanh_upsample64_are_statistics():
    network, _ = built("tanh-upsample64")
    learned = sum(weight.size for weight in network.parameters() if not weight.stop_gradient)
    assert sum(weight.size for weight in network.state_dict().values()) - learned == 65_536


@pytest.fixture
def training(command, tmp_path):
    """training("dcgan28", folder, "run", 20) trains a tiny network in tmp_path/run until it has 20 steps."""
    return lambda arch, data, name, steps: command(train, "--device", "cpu", "--arch", arch, "--channels", 1, "--batch", 8,
                                                   "--data", data, "--out", tmp_path / name, "--decay", 0,
                                                   "--steps", steps)


@pytest.mark.parametrize("arch", SIZES)
def test_it_trains_and_draws_by_its_name(arch, packed, training, command, tmp_path):
    assert training(arch, packed(SIZES[arch]), "run", 20).status == 0
    assert np.isfinite(np.load(tmp_path / "run" / "losses.npy")).all()
    options = read_facts(tmp_path / "run" / "checkpoint.safetensors")["options"]
    assert all(options[habit] == value for habit, value in zoo.ZOO[arch].defaults.items())
    result = command(generator, "--device", "cpu", "--weights", tmp_path / "run" / "generator.safetensors", "--n", 3,
                     "--out", tmp_path / "drawn")
    assert result.status == 0 and arch in result.out and (tmp_path / "drawn" / "seed0002.png").exists()


def test_dropout_falls_the_same_in_a_run_that_was_cut_off(packed, training, tmp_path):
    data = packed(28)
    for name, steps in (("whole", 6), ("halves", 3), ("halves", 6)):
        assert training("dcgan28", data, name, steps).status == 0
    whole, halves = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "halves"))
    assert all((whole[key] == halves[key]).all() for key in whole)


def test_its_faces_are_scored_whatever_their_size(packed, training, command, tmp_path):
    """28 px cannot be halved five times."""
    data = packed(28)
    training("dcgan28", data, "run", 1)
    result = command(evaluate, "--device", "cpu", "--fake", tmp_path / "run" / "generator.safetensors", "--real", data,
                     "--out", tmp_path / "evaluation")
    assert result.status == 0, result.err
    scores = json.loads((tmp_path / "evaluation" / "scores.json").read_text())["scores"]
    assert {"swd_28", "swd_14", "ms_ssim", "two_sample", "nearest"} <= scores["generated"].keys()
    assert scores["real faces"]["swd_mean"] < scores["PCA faces"]["swd_mean"] < scores["random generator"]["swd_mean"]


@pytest.mark.parametrize("arguments, said", [
    (("--arch", "dcgan28"), "--size 28"), (("--arch", "dcgan5x5"), "--size 48"), (("--arch", "dcgan"), "--size 64"),
    (("--arch", "dcgan28", "--up", "resize"), "--up"), (("--arch", "dcgan28", "--loss", "hinge"), "--label-smoothing 0"),
    (("--loss", "hinge", "--label-smoothing", "0.1"), "--label-smoothing")])
def test_what_does_not_go_together_gets_a_sentence(packed, command, tmp_path, arguments, said):
    result = command(train, "--device", "cpu", "--data", packed(20), "--out", tmp_path / "run", "--steps", 1, *arguments)
    assert result.status == 2 and said in result.err and result.err.count("\n") == 1 and not (tmp_path / "run").exists()
