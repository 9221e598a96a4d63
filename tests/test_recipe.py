from support.cli import UserError

import sys
from dataclasses import asdict

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
    assert (best.batch, best.flip, best.ema, best.augment, best.decay) == (16, True, 10_000, "auto", 0.3)
    assert (classic.batch, classic.flip, classic.ema, classic.augment, classic.decay) == (128, False, 0, "off", 0)
    typed = parse("--flip --preset classic --ema 500")
    assert (typed.batch, typed.flip, typed.ema, typed.augment) == (128, True, 500, "off")


def test_only_the_default_networks_have_the_aid_unless_asked(parse):
    lines = ("", "--preset classic", "--arch dcgan28", "--no-vision-aided", "--preset classic --vision-aided",
             "--arch dcgan28 --vision-aided")
    assert [parse(line).vision_aided for line in lines] == [True, False, False, False, True, True]


def test_one_learning_rate_or_two(parse):
    lines = ("", "--lr 1e-3", "--lr-d 3e-4", "--lr 1e-3 --lr-g 0", "--preset classic", "--preset classic --lr-d 1e-3",
             "--arch dcgan28", "--arch dcgan28 --lr 1e-3", "--from celeba64", "--from celeba64 --lr 1e-3")
    recipes = [recipe.make_recipe(parse(line), 200_000) for line in lines]
    assert [(settled.lr_d, settled.lr_g) for settled in recipes] == [
        (2e-4, 1e-4), (1e-3, 1e-3), (3e-4, 1e-4), (1e-3, 0), (2e-4, 2e-4), (1e-3, 2e-4), (2e-4, 2e-4), (1e-3, 1e-3), (2e-4, 5e-5),
        (1e-3, 1e-3)]


def test_networks_for_larger_faces_are_narrower(parse):
    for line, size, wanted in (("", 16, 64), ("", 64, 64), ("", 128, 32), ("", 256, 16), ("--channels 64", 128, 64),
                               ("--arch fakeface128", 128, 64)):
        assert recipe.make_recipe(parse(line), 200_000, size).channels == wanted


def test_the_smallest_sets_are_augmented_more(parse):
    for line, faces, wanted in (("", 100, 1), ("", 20_000, 0.5), ("", 200_000, 0.5), ("--augment-p 0.2", 100, 0.2)):
        assert recipe.make_recipe(parse(line), faces).augment_p == wanted


def test_with_few_faces_little_of_a_trained_generator_learns(parse):
    for line, faces, wanted in (("--from celeba64", 4_999, (True, 3e-4)), ("--from celeba64", 5_000, (False, 5e-5)),
                                ("--from celeba64 --no-freeze-g", 100, (False, 5e-5)), ("", 100, (False, 1e-4)),
                                ("--from celeba64 --freeze-g", 200_000, (True, 3e-4))):
        settled = recipe.make_recipe(parse(line), faces)
        assert (settled.freeze_g, settled.lr_g) == pytest.approx(wanted)


def test_small_sets_are_augmented(parse, capsys):
    for line, faces, wanted in (("", 100, "shift"), ("", 200_000, "off"), ("--augment off", 100, "off"),
                                ("--augment diffaugment", 200_000, "diffaugment")):
        assert recipe.make_recipe(parse(line), faces).augment == wanted
        assert ("--augment off" in capsys.readouterr().out) == (line == "" and faces == 100)


def test_changed_defaults_are_what_the_same_options_typed_would_be(parse):
    for line, changes in (("--arch dcgan28 --batch 9", {"arch": "dcgan28", "batch": 9}),
                          ("--preset classic", {"preset": "classic"}), ("--loss hinge --ema 0", {"loss": "hinge", "ema": 0})):
        assert recipe.defaults(**changes) == recipe.make_recipe(parse(line), 200_000)
    with pytest.raises(TypeError):
        recipe.defaults(typo=1)


def test_an_option_that_only_some_networks_have(parse):
    parse("--up deconv")
    with pytest.raises(UserError, match="--up does not go with --arch dcgan28.*--arch dcgan$"):
        parse("--arch dcgan28 --up deconv")


DATA = {"pictures": "aa", "labelled": "", "where": "", "conditional": ""}


def test_a_run_with_other_weights_to_come_is_named_for_what_differs():
    now = {**asdict(recipe.defaults()), **DATA}
    for changes, phrases in (({}, []), ({"lr_g": 1e-3}, ["--lr-g (it has 0.001, you ask for 0.0001)"]),
                             ({"flip": False, "up": ""}, ["--up (it has none, you ask for resize)",
                                                          "--flip (it has off, you ask for on)"]),
                             ({"labelled": "x", "where": "A=1"}, ["--where (it has A=1, you ask for none)"])):
        assert recipe.differences({**now, **changes}, now, "imgs") == phrases
    for key, what in (("pictures", "faces"), ("labelled", "labels")):
        [phrase] = recipe.differences({**now, key: "bb"}, now, "imgs")
        assert phrase == f"--data (imgs holds other {what} than those it was trained on)"


def test_what_a_run_does_not_say_of_itself_gets_a_sentence():
    now = {**asdict(recipe.defaults()), **DATA}
    for key in ("seed", "channels", "pictures", "lr_d"):
        with pytest.raises(UserError, match=f"{key}.*--fresh"):
            recipe.differences({name: value for name, value in now.items() if name != key}, now, "imgs")
