from support.cli import UserError

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


def test_what_a_run_does_not_say_of_itself_gets_a_sentence(parse):
    options = parse("")
    options.pictures, options.labelled = "aa", ""
    for key in ("seed", "channels", "pictures", "lr_d"):
        before = {name: value for name, value in vars(options).items() if name != key}
        with pytest.raises(UserError, match=f"{key}.*--fresh"):
            recipe.differences(before, options)


def test_a_run_is_long_enough_for_faces(parse):
    for line, steps_per_epoch, steps in (("", 6, 2500), ("", 12_000, 96_000), ("--epochs 8", 6, 48), ("--steps 7", 6, 7),
                                         ("--steps 7 --epochs 9", 6, 7)):
        assert recipe.total_steps(parse(line), steps_per_epoch) == steps


def test_samples_and_scores_are_due_early_and_then_regularly():
    def steps(early, every):
        return [step for step in range(1, 8001) if recipe.due(step, early, every)]

    assert steps(recipe.EARLY_SAMPLES, 500)[:5] == [50, 100, 200, 500, 1000]
    assert steps(recipe.EARLY_SCORES, 4000) == [500, 1000, 2000, 4000, 8000]


def test_built_in_faces_have_a_folder_of_their_own(parse, capsys):
    for line, sources, folder in (("", [recipe.BUILTIN], "Output-builtin"), ("", ["img_align_celeba.zip"], "Output"),
                                  ("--out here", [recipe.BUILTIN], "here")):
        options = parse(line)
        recipe.settle_folder(options, sources)
        assert options.out == folder and ("Output-builtin" in capsys.readouterr().out) == (folder == "Output-builtin")


def test_what_to_type_to_go_on(parse):
    for typed, wanted in (("", ""), ("--steps 5 --lr 1e-3", "--lr 1e-3"), ("--epochs=5 --no-flip", "--no-flip"),
                          ("--out a --data b", "--out a --data b"), ("--fresh", "--out 'new run'"),
                          ("--out a --fresh --data b --out=c", "--data b --out 'new run'")):
        assert recipe.command("new run", 9, typed.split()) == " ".join(f"python train.py {wanted} --steps 9".split())
