from dataclasses import replace

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from safetensors.numpy import load_file

import pretreat
import train
from training import checkpoint
from training.players import networks_and_adams
from training.randomness import draws, noise


def networks_of(players):
    return networks_and_adams(players)[0]


def endless_batches():
    while True:
        yield paddle.rand([6, 3, 16, 16]) * 2 - 1, None


@pytest.mark.parametrize("player, alone", [("discriminator", "--lr-g 0"), ("generator", "--lr-d 0 --g-steps 1")])
def test_learning_rates_fall_towards_the_end(training, tmp_path, player, alone):
    def learned(steps, decay):
        out = tmp_path / f"{steps}-{decay}"
        training(*alone.split(), "--steps", steps, "--decay", decay, out=out)
        arrays = load_file(out / "checkpoint.safetensors")
        return {name: arrays[name] for name in arrays if name.startswith(player) and name.endswith("weight")}

    before, kept, falling = learned(2, 0), learned(3, 0), learned(3, 0.5)
    assert before
    for name in before:  # a third of the last half is over when the last of three steps begins: 1 - 0.7 / 3 of the rate
        assert np.abs(kept[name] - before[name]).max() > 1e-5
        assert np.allclose(falling[name] - before[name], (1 - 0.7 / 3) * (kept[name] - before[name]), atol=1e-6), name


def test_discriminator_and_generator_take_their_numbers_of_updates(players_and_recipe):
    players, recipe = players_and_recipe(d_steps=3, g_steps=2)
    trainer = train.Trainer(players, recipe)
    for step in range(2):
        trainer.step(step, endless_batches())
    _, adams = networks_and_adams(players)
    for name, updates in (("generator", 4), ("discriminator", 6)):
        arrays = checkpoint.adam_arrays(name, networks_of(players)[name], adams[name])
        powers = [array for key, array in arrays.items() if "beta1_pow" in key]
        assert len(powers) >= 5 and all(power == pytest.approx(0.5 ** (updates + 1)) for power in powers)


def test_two_steps_are_those_of_the_paper(players_and_recipe):
    """Against the same written out plainly: nothing frozen, nothing shared, every gradient cleared."""
    players, recipe = players_and_recipe(d_steps=1, g_steps=2)
    plain, _ = players_and_recipe()
    batches = [paddle.to_tensor(draws(0, "test", step).random((6, 3, 16, 16), dtype="float32")) for step in range(2)]

    trainer, given = train.Trainer(players, recipe), iter([(reals, None) for reals in batches])
    for step in range(2):
        trainer.step(step, given)
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


def test_every_update_has_fresh_noise(players_and_recipe, monkeypatch):
    seen = []
    monkeypatch.setattr("training.randomness.noise", lambda *key: seen.append(key[:3]) or np.zeros(key[3:5], "float32"))
    trainer = train.Trainer(*players_and_recipe(d_steps=2, g_steps=2))
    for step in range(3):
        trainer.step(step, endless_batches())
    assert len(seen) == len(set(seen)) == 12


def test_what_is_saved_for_sampling_is_the_average(training, tmp_path):
    training("--steps", 3)
    run, sampling = load_file(tmp_path / "run" / "checkpoint.safetensors"), load_file(tmp_path / "run" / "generator.safetensors")
    assert all((run[f"average.{name}"] == array).all() for name, array in sampling.items())
    assert any((run[f"generator.{name}"] != array).any() for name, array in sampling.items())


def test_faces_of_a_size_without_a_network(command, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    command(pretreat, "--size", 48, "--limit", 9)
    result = command(train, "--device", "cpu")
    assert result.status == 2 and "have 48" in result.err and "--size 64" in result.err


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("ResourceExhaustedError: Out of memory error on GPU 0")])
def test_out_of_memory_suggests_a_smaller_batch(training, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(train.Trainer, "step", fail)
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


def test_discriminator_gets_no_gradients_in_the_generators_updates(players_and_recipe):
    players, _ = players_and_recipe()
    D = players.D.network
    pictures = paddle.rand([4, 3, 16, 16])
    pictures.stop_gradient = False
    learning = [weight.name for weight in D.parameters() if not weight.stop_gradient]
    with train.frozen(D):
        D(pictures).sum().backward()
    assert all(weight.grad is None for weight in D.parameters()) and float(pictures.grad.abs().sum()) > 0
    assert [weight.name for weight in D.parameters() if not weight.stop_gradient] == learning


def test_the_average_has_its_half_life(players_and_recipe):
    players, recipe = players_and_recipe(ema=10_000)
    trainer = train.Trainer(players, recipe)
    for tensor in players.G.network.state_dict().values():
        tensor.set_value(paddle.ones_like(tensor))
    for tensor in players.average.state_dict().values():
        tensor.set_value(paddle.zeros_like(tensor))
    for _ in range(4):  # 4 × 2,500 images are one half-life, late in a run
        trainer.update_average(images_seen=1e9, step_images=2500)
    for tensor in players.average.state_dict().values():  # the batch-norm statistics too
        assert float(tensor.mean()) == pytest.approx(0.5, abs=1e-5)
    trainer.update_average(images_seen=100, step_images=100)
    assert float(players.average.deconv1.weight.mean()) > 0.99  # early, it is short
    for tensor in players.average.state_dict().values():
        tensor.set_value(paddle.zeros_like(tensor))
    trainer.recipe = replace(recipe, from_="celeba64")
    trainer.update_average(images_seen=1000, step_images=300)
    assert float(players.average.deconv1.weight.mean()) == pytest.approx(0.5, abs=1e-5)  # less so from trained weights
    for tensor in players.G.network.state_dict().values():
        tensor.set_value(paddle.full_like(tensor, 7))
    trainer.recipe = replace(recipe, ema=0)
    trainer.update_average(images_seen=1e9, step_images=1)
    assert all(float(tensor.min()) == 7 for tensor in players.average.state_dict().values())
