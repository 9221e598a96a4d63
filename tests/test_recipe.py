import sys
from types import SimpleNamespace

import pytest

import recipe


@pytest.fixture
def parse(monkeypatch):
    def run(line):
        monkeypatch.setattr(sys, "argv", ["train.py", *line.split()])
        return recipe.parse_options("")

    return run


def test_a_preset_changes_defaults_and_what_is_typed_counts(parse):
    best, classic = parse(""), parse("--preset classic")
    assert (best.batch, best.flip, best.ema, best.augment, best.halve_after) == (16, True, 10_000, "auto", 7500)
    assert (classic.batch, classic.flip, classic.ema, classic.augment, classic.halve_after) == (128, False, 0, "off", 0)
    typed = parse("--flip --preset classic --ema 500")
    assert (typed.batch, typed.flip, typed.ema, typed.augment) == (128, True, 500, "off")


def test_one_learning_rate_or_two(parse):
    lines = ("", "--lr 1e-3", "--lr-d 3e-4", "--lr 1e-3 --lr-g 0", "--preset classic", "--preset classic --lr-d 1e-3",
             "--arch dcgan28", "--arch dcgan28 --lr 1e-3")
    assert [(options.lr_d, options.lr_g) for options in map(parse, lines)] == [
        (2e-4, 1e-4), (1e-3, 1e-3), (3e-4, 1e-4), (1e-3, 0), (2e-4, 2e-4), (1e-3, 2e-4), (2e-4, 2e-4), (1e-3, 1e-3)]


def test_small_sets_are_augmented(parse, capsys):
    for line, faces, wanted in (("", 100, "shift"), ("", 200_000, "off"), ("--augment off", 100, "off"),
                                ("--augment diffaugment", 200_000, "diffaugment")):
        options = parse(line)
        recipe.settle_augmentation(options, faces)
        assert options.augment == wanted
        assert ("--augment off" in capsys.readouterr().out) == (line == "" and faces == 100)


def test_options_that_came_later_do_not_stop_an_older_run(parse):
    options = parse("--lr-g 1e-3")
    options.pictures, options.labelled = "aa", ""
    before = {**vars(options), "lr_g": 2e-4}
    del before["loss"]
    assert recipe.differences(before, options) == ["--lr-g (it has 0.0002, you ask for 0.001)"]
    old = {key: value for key, value in vars(options).items() if key not in (*recipe.OLDER, "lr_d", "lr_g")}
    old["lr"] = 1e-4
    options.augment = "diffaugment"
    assert recipe.differences(old, options) == [
        "--up (it has deconv, you ask for resize)", "--augment (it has off, you ask for diffaugment)",
        "--augment-p (it has 1.0, you ask for 0.5)", "--flip (it has off, you ask for on)",
        "--lr-d (it has 0.0001, you ask for 0.0002)", "--lr-g (it has 0.0001, you ask for 0.001)",
        "--halve-after (it has 0, you ask for 7500)"]
    assert recipe.differences({**vars(options), "pictures": "bb"}, options)[0].startswith("--data (")
    assert recipe.differences(vars(options), SimpleNamespace(**vars(options))) == []
