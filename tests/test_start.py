import json

import pytest
from safetensors.numpy import load_file

import train
from training.checkpoint import read_generator_facts

PLAIN = ("--no-vision-aided", "--decay", 0, "--ema", 0)  # without an average, what is saved is the generator itself


@pytest.fixture
def learned(training, tmp_path):
    """The weights of a run of 3 steps, whose discriminator is in the checkpoint beside them."""
    assert training("--steps", 3, *PLAIN, out="before").status == 0
    return tmp_path / "before" / "generator.safetensors"


def part(path, prefix):
    """The arrays of a file whose names have this prefix, without it."""
    return {name.removeprefix(prefix): array for name, array in load_file(path).items() if name.startswith(prefix)}


def start(command, faces, tmp_path, *arguments, out="after"):
    return command(train, "--data", faces, "--out", tmp_path / out, "--device", "cpu", "--batch", 32, *PLAIN, *arguments)


def test_a_run_starts_from_what_another_learned(command, faces16, learned, tmp_path):
    """With learning rates of 0 the networks stay what they were, in both players; the networks' options need not be typed."""
    result = start(command, faces16, tmp_path, "--from", learned, "--steps", 1, "--lr", 0)
    assert result.status == 0 and "from: " in result.out and "trained 3 steps" in result.out and "untrained" not in result.out
    before, after = (load_file(tmp_path / run / "checkpoint.safetensors") for run in ("before", "after"))
    stayed = {name for name in before if name.endswith(("weight", "bias")) and (before[name] == after[name]).all()}
    assert {name.partition(".")[0] for name in stayed} == {"generator", "discriminator", "average"}
    assert stayed == {name for name in before if name.endswith(("weight", "bias"))}
    facts = read_generator_facts(tmp_path / "after" / "generator.safetensors")
    assert facts["step"] == 1 and "trained 3 steps (96 images seen)" in facts["from_"]


def test_of_what_the_start_itself_started_from_the_name_is_said(command, faces16, training, tmp_path):
    """Also where it has brackets, such as a copied folder's."""
    training("--steps", 3, *PLAIN, out="run (1)")
    for before, after in (("run (1)", "second"), ("second", "third")):
        result = start(command, faces16, tmp_path, "--from", tmp_path / before / "generator.safetensors", "--steps", 1, out=after)
    assert f"starting from {tmp_path}/run (1)/generator.safetensors)" in result.out and "trained 3 steps" not in result.out


def test_such_a_run_resumes_to_the_same_end(command, faces16, learned, tmp_path):
    for steps, out in ((4, "whole"), (2, "parts"), (4, "parts")):
        assert start(command, faces16, tmp_path, "--from", learned, "--steps", steps, out=out).status == 0
    whole, parts = (load_file(tmp_path / out / "checkpoint.safetensors") for out in ("whole", "parts"))
    assert all((whole[name] == parts[name]).all() for name in whole)
    result = start(command, faces16, tmp_path, "--steps", 6, "--z-dim", 8, "--channels", 4, out="parts")
    assert result.status == 2 and "--from (it has" in result.err


@pytest.mark.parametrize("aid", [[], ["--vision-aided"]])
def test_networks_grow_to_faces_of_twice_the_size(aid, command, faces_at, training, tmp_path):
    """The layers next to z, and next to D's verdict, are the trained ones; those next to the picture are new."""
    training("--steps", 1, *PLAIN, *aid, out="before")
    learned = tmp_path / "before" / "generator.safetensors"
    for steps in (1, 2):  # the second resumes
        result = start(command, faces_at(32), tmp_path, "--from", learned, "--steps", steps, "--lr", 0, *aid)
        assert result.status == 0, result.err
        assert "untrained, because" not in result.out and "no other layer" not in result.out
        assert ("the networks grow from 16 to 32 px" in result.out) == (steps == 1)
    before, after = (load_file(tmp_path / run / "checkpoint.safetensors") for run in ("before", "after"))
    for name in ("deconv1.weight", "bn1.weight", "deconv2.weight"):
        assert (before[f"generator.{name}"] == after[f"generator.{name}"]).all()
    inner = "discriminator.discriminators.0." if aid else "discriminator."
    for old, new in (("conv2.weight", "conv3.weight"), ("bn2.bias", "bn3.bias"), ("conv3.weight", "conv4.weight")):
        assert (before[inner + old] == after[inner + new]).all()
    if aid:
        of_maps = [name for name in before if name.startswith("discriminator.discriminators.1.") and name.endswith("weight")]
        assert of_maps and all((before[name] == after[name]).all() for name in of_maps)
    result = start(command, faces_at(32), tmp_path, "--from", learned, "--channels", 4, "--steps", 1, *aid, out="wide")
    assert result.status == 2 and "whose networks need 2" in result.err


def test_a_generator_gets_a_layer_more_for_the_picture(command, faces16, training, tmp_path):
    training("--steps", 1, *PLAIN, "--up", "resize", out="before")
    learned = tmp_path / "before" / "generator.safetensors"
    result = start(command, faces16, tmp_path, "--from", learned, "--up", "refine", "--steps", 1, "--lr", 0)
    assert result.status == 0 and "next to the picture start untrained, because they are those of --up refine" in result.out
    before, after = (load_file(tmp_path / run / "checkpoint.safetensors") for run in ("before", "after"))
    weights = {name for name in after if name.startswith(("generator.", "discriminator.")) and name.endswith("weight")}
    new = {name for name in weights if name not in before or before[name].shape != after[name].shape}
    assert new == {"generator.deconv3.weight", "generator.bn3.weight", "generator.conv4.weight"}
    assert all((before[name] == after[name]).all() for name in weights - new)


@pytest.mark.parametrize("aid", [[], ["--vision-aided"]])
def test_the_first_layers_of_a_frozen_discriminator_stay(aid, command, faces16, training, tmp_path):
    training("--steps", 1, *PLAIN, *aid, out="before")
    learned = tmp_path / "before" / "generator.safetensors"
    assert start(command, faces16, tmp_path, "--from", learned, *aid, "--freeze-d", 2, "--steps", 2).status == 0
    inner = "discriminator.discriminators.0." if aid else "discriminator."
    before, after = (part(tmp_path / run / "checkpoint.safetensors", inner) for run in ("before", "after"))
    stayed = {name for name in before if name.endswith(("weight", "bias")) and (before[name] == after[name]).all()}
    assert stayed == {"conv1.weight", "conv2.weight", "bn2.weight", "bn2.bias"}
    result = start(command, faces16, tmp_path, "--from", learned, *aid, "--freeze-d", 3, "--steps", 2, out="all")
    assert result.status == 2 and "--freeze-d 3: D has 3 layers" in result.err


def test_of_a_frozen_generator_the_first_layer_and_the_batch_norms_learn(command, faces16, learned, tmp_path):
    """So it is with few faces, unless --no-freeze-g is typed, and G's default learning rate depends on it."""
    before = part(learned.with_name("checkpoint.safetensors"), "generator.")
    convolutions = {name for name in before if name.endswith("weight") and not name.startswith("bn")}
    for arguments, kept, rate in (([], convolutions - {"deconv1.weight"}, 3e-4), (["--no-freeze-g"], set(), 5e-5)):
        out = f"after{len(kept)}"
        result = start(command, faces16, tmp_path, "--from", learned, *arguments, "--steps", 2, out=out)
        assert result.status == 0 and ("no other layer, because" in result.out) == bool(kept), result.err
        after = part(tmp_path / out / "checkpoint.safetensors", "generator.")
        assert {name for name in before if name.endswith(("weight", "bias")) and (before[name] == after[name]).all()} == kept
        assert json.loads((tmp_path / out / "options.json").read_text())["lr_g"] == pytest.approx(rate)


def test_a_discriminator_of_another_kind_starts_untrained(command, faces16, learned, training, tmp_path):
    result = start(command, faces16, tmp_path, "--from", learned, "--steps", 1, "--vision-aided")
    assert result.status == 0 and "discriminator starts untrained" in result.out and "--vision-aided" in result.out
    training("--steps", 1, *PLAIN, "--channels", 6, out="wide")
    learned.with_name("checkpoint.safetensors").write_bytes((tmp_path / "wide/checkpoint.safetensors").read_bytes())
    result = start(command, faces16, tmp_path, "--from", learned, "--steps", 1, out="narrow")
    assert result.status == 0 and "discriminator starts untrained, because" in result.out and "--channels" in result.out
    learned.with_name("checkpoint.safetensors").unlink()
    result = start(command, faces16, tmp_path, "--from", learned, "--steps", 1, out="alone")
    assert result.status == 0 and "discriminator starts untrained, because none is beside" in result.out


@pytest.mark.parametrize("arguments, words", [
    (["--from", "RUN", "--channels", 8], ["--channels 8", "whose networks need 4", "leave it out"]),
    (["--from", "celeba64"], ["--from celeba64 draws 64 px", "have 16", "--size 64 --out imgs64"]),
    (["--from", "missing"], ["missing: no such file"]),
    (["--from", "RUN", "--conditional", "Smiling"], ["--conditional"]),
    (["--freeze-d", 1], ["--freeze-d", "--from"]), (["--freeze-g"], ["--freeze-g", "--from"]),
    (["--from", "RUN", "--up", "refine", "--freeze-g"], ["--freeze-g", "are new", "leave it out"]),
    (["--from", "RUN", "--freeze-d", 1, "--loss", "hinge"], ["--freeze-d", "another --loss", "leave it out"])])
def test_bad_input_gets_a_sentence(command, faces16, learned, tmp_path, arguments, words):
    arguments = [learned if word == "RUN" else word for word in arguments]
    result = start(command, faces16, tmp_path, *arguments, "--steps", 1)
    assert result.status == 2 and result.err.count("\n") == 1 and all(word in result.err for word in words), result.err
    assert not (tmp_path / "after").exists()
