"""A generator written for other programs."""
import importlib
import json
import os
import subprocess
import sys

import numpy as np
import paddle
import paddle.nn as nn
import pytest
from paddle import inference
from PIL import Image

import generator
from support import export, files
from training import checkpoint
from training.randomness import face_inputs
from zoo import Plan, build_generator

PLANS = [Plan(size=16, z_dim=8, channels=4),
         Plan(size=32, z_dim=8, channels=4, up="resize", labels={"Smiling": [1, -1], "Male": [1, 1]}),
         Plan(size=16, z_dim=8, channels=4, up="refine"),
         Plan("fakeface128", 128, 8, "uniform01", channels=1), Plan("dcgan5x5", 48, 8, "uniform", channels=4),
         Plan("tanh-upsample64", 64, 8, channels=4), Plan("upsample48", 48, 8, channels=4), Plan("dcgan28", 28, 8, channels=4)]


def needs_converter():
    """Skips a test where paddle2onnx is missing, or made for another Paddle."""
    try:
        importlib.import_module("onnxruntime")
        importlib.import_module("paddle2onnx")
    except (ImportError, ValueError) as error:
        pytest.skip(f"requirements-export.txt: {error}")


def trained(plan):
    """A generator whose batch norms are not those of the start: the same whatever other tests drew before."""
    paddle.seed(0)
    made = build_generator(plan)
    for _ in range(3):
        made(paddle.randn([8, plan.z_dim + len(plan.labels)]))
    for name, weight in made.named_parameters():
        if name.endswith("bias"):
            weight.set_value(0.1 * paddle.randn(weight.shape))
    return made


def saved(plan, path):
    made = trained(plan)
    checkpoint.save_generator(path, made, {**plan._asdict(), "pictures": "", "where": "", "step": 1, "images_seen": 1,
                                           "data": "nothing", "seed": 0, "scores": {}})
    return path


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.arch + "-" + plan.up)
def test_every_generator_is_the_same_elsewhere(plan, tmp_path, command):
    needs_converter()
    result = command(generator, "--device", "cpu", "--weights", saved(plan, tmp_path / "weights.safetensors"),
                     "--export", tmp_path / "model")
    assert result.status == 0, result.err
    assert result.out.count("differs from the network by") == 2
    assert b"BatchNormalization" not in (tmp_path / "model" / "generator.onnx").read_bytes()
    done = subprocess.run([sys.executable, "example.py"], cwd=tmp_path / "model", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    faces = np.asarray(Image.open(tmp_path / "model" / "faces.png"))
    assert faces.shape == (plan.size, 16 * plan.size, 3) and faces.std() > 0


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.arch + "-" + plan.up)
def test_batch_norms_are_folded_and_the_network_stays_as_it_was(plan):
    made = trained(plan)
    made.eval()
    z = paddle.randn([4, plan.z_dim + len(plan.labels)])
    wanted = made(z).numpy()
    plain = export.plain(made)
    assert not any(isinstance(layer, (nn.BatchNorm1D, nn.BatchNorm2D)) for layer in plain)
    np.testing.assert_allclose(plain(z).numpy(), wanted, atol=1e-5)
    np.testing.assert_array_equal(made(z).numpy(), wanted)


@pytest.mark.parametrize("onednn", [True, False], ids=["oneDNN", "without oneDNN"])
@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.arch + "-" + plan.up)
def test_paddle_inference_draws_the_same(plan, onednn, tmp_path, command):
    needs_converter()
    weights = saved(plan, tmp_path / "weights.safetensors")
    assert command(generator, "--weights", weights, "--export", tmp_path / "model").status == 0
    model, = (path for path in (tmp_path / "model").glob("generator.*") if path.suffix in (".json", ".pdmodel"))
    config = inference.Config(str(model), str(model.with_suffix(".pdiparams")))
    if onednn:
        config.enable_mkldnn()
    elif hasattr(config, "disable_mkldnn"):  # where it is on by default
        config.disable_mkldnn()
    predictor = inference.create_predictor(config)
    made, _ = checkpoint.load_generator(weights)
    z = face_inputs(made.plan, range(8))
    predictor.get_input_handle("z").copy_from_cpu(z)
    predictor.run()
    drawn = predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()
    np.testing.assert_allclose(drawn, made(paddle.to_tensor(z)).numpy(), atol=1e-3)


def test_a_model_that_draws_something_else_is_not_written(tmp_path, command, monkeypatch):
    needs_converter()
    genuine = export.plain

    def changed(made):
        network = genuine(made)
        for weight in network.parameters():
            weight.set_value(weight * 1.5)
        return network

    monkeypatch.setattr(export, "plain", changed)
    result = command(generator, "--weights", saved(PLANS[0], tmp_path / "weights.safetensors"), "--export", tmp_path / "model")
    assert result.status == 1 and "draws other faces" in result.err and os.listdir(tmp_path) == ["weights.safetensors"]


def test_an_export_replaces_an_earlier_one_as_a_whole_and_nothing_else(tmp_path, command, monkeypatch):
    needs_converter()
    plain, labelled = (saved(plan, tmp_path / f"{plan.size}.safetensors") for plan in PLANS[:2])

    def run(weights):
        return command(generator, "--weights", weights, "--export", tmp_path / "model")

    assert run(labelled).status == 0 and json.loads((tmp_path / "model" / "labels.json").read_text()) == ["Smiling", "Male"]
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files, "replace_folder", die)
        assert run(plain).status == 130
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before
    assert run(plain).status == 0 and not (tmp_path / "model" / "labels.json").exists()
    (tmp_path / "model" / "diary.txt").touch()
    result = run(labelled)
    assert result.status == 2 and "diary.txt" in result.err and (tmp_path / "model" / "diary.txt").exists()


def test_names_of_attributes_are_not_written_into_the_example(tmp_path):
    made = build_generator(PLANS[1]._replace(labels={"Smiling": [1]}))
    made.plan = made.plan._replace(labels={"x\nimport os  # ": [1]})  # which no weights file may say, see test_checkpoint.py
    assert "import os" not in export.example(made) and "labels.json" in export.example(made)


def test_packages_that_are_not_installed(tmp_path, command, monkeypatch):
    weights = saved(PLANS[0], tmp_path / "weights.safetensors")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = command(generator, "--weights", weights, "--export", tmp_path / "model")
    assert result.status == 2 and "requirements-export.txt" in result.err and not (tmp_path / "model").exists()
