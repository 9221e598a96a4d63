"""Files of z, the z of a photo, directions and sums."""
from support.cli import UserError

import argparse

import numpy as np
import pytest
from PIL import Image

import contrast
import generator
from dataReader import normalise
from latent import directions, projection, sums
from network import draw_faces
from training.checkpoint import load_generator
from training.randomness import Latent, face_inputs
from training.weights import PRETRAINED

ARCHIVE = b"PK\x05\x06" + bytes(18)  # an empty .npz file


@pytest.fixture(scope="module")
def pretrained():
    return load_generator(PRETRAINED)[0]


def test_a_file_of_z_draws_the_faces_that_it_was_saved_from(command, tmp_path):
    def draw(*arguments, out):
        result = command(generator, "--weights", "celeba64", "--device", "cpu", "--out", tmp_path / out, *arguments)
        assert result.status == 0, result.err
        return np.asarray(Image.open(tmp_path / out / "grid.png"))

    seeds = draw("--seeds", "3,9,4,1", "--save-z", tmp_path / "four.npy", out="seeds")
    assert (draw("--z", tmp_path / "four.npy", out="file") == seeds).all()
    assert (tmp_path / "file" / "four-3.png").read_bytes() == (tmp_path / "seeds" / "seed0001.png").read_bytes()
    np.save(tmp_path / "one.npy", np.load(tmp_path / "four.npy")[1])
    assert (draw("--seeds", f"3,{tmp_path / 'one.npy'},4,1", out="both") == seeds).all()


@pytest.mark.parametrize("content, words", [
    (None, "no such file"), (b"text", "not a readable .npy file"), (np.zeros(3, np.float32), "it is of another generator"),
    (np.full(100, np.nan, np.float32), "not finite"), (np.zeros(100, np.int64), "floating-point"),
    (np.zeros((0, 100), np.float32), "floating-point"), (np.array([None]), "not a readable .npy file"),
    (ARCHIVE, "not a readable .npy file")])
def test_bad_files_of_z_get_a_sentence(content, words, command, tmp_path):
    path = tmp_path / "z.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    for script, flag, text in ((generator, "--z", path), (generator, "--seeds", f"1,{path}"), (contrast, "--walk", f"1,{path}")):
        result = command(script, flag, text, "--weights", "celeba64", "--device", "cpu")
        assert result.status == 2 and words in result.err and result.err.count("\n") == 1


def test_the_nearest_face_is_nearer_than_any_seed_that_it_started_from(pretrained, monkeypatch):
    monkeypatch.setattr(projection, "POOL", 100)
    monkeypatch.setattr(projection, "STARTS", 2)
    monkeypatch.setattr(projection, "STEPS", 60)
    face, = draw_faces(pretrained, face_inputs(pretrained.plan, [1234]))
    unlike, steps = projection.Likeness(face), []
    pool = draw_faces(pretrained, face_inputs(pretrained.plan, range(100)))
    found = projection.project(pretrained, face, lambda: steps.append(1))
    assert found.dtype == np.float32 and found.shape == (100,) and len(steps) == 60
    drawn = draw_faces(pretrained, found[None])
    assert unlike(normalise(drawn)).item() < 0.5 * unlike(normalise(pool)).min().item()
    assert abs(drawn[0].astype(int) - face).mean() < 0.6 * abs(pool.astype(int) - face).mean(axis=(1, 2, 3)).min()


def test_a_photo_must_show_one_face(command, tmp_path, monkeypatch):
    path = tmp_path / "me.png"
    Image.new("RGB", (80, 80), "grey").save(path)
    points = np.array([[25.0, 30.3], [39.0, 30.3], [32.0, 38.9], [26.2, 45.2], [37.8, 45.2]])
    for found, words in (([], "no face was found"), ([points, points], "2 faces were found"), ([points / 9], "too small")):
        monkeypatch.setattr(projection, "find_faces", lambda photo, found=found: np.array(found))
        result = command(generator, "--photo", path, "--weights", "celeba64", "--out", tmp_path / "out")
        assert result.status == 2 and str(path) in result.err and words in result.err and result.err.count("\n") == 1
    path.write_bytes(b"no picture")
    assert "not a picture" in command(generator, "--photo", path, "--weights", "celeba64").err
    assert "No such file" in command(generator, "--photo", tmp_path / "none.jpg", "--weights", "celeba64").err
    assert not (tmp_path / "out").exists()


def test_a_photos_face_and_its_z_are_saved(command, tmp_path, monkeypatch):
    for name, value in (("POOL", 20), ("STARTS", 1), ("STEPS", 2)):
        monkeypatch.setattr(projection, name, value)
    points = np.array([[25.0, 30.3], [39.0, 30.3], [32.0, 38.9], [26.2, 45.2], [37.8, 45.2]])
    monkeypatch.setattr(projection, "find_faces", lambda photo: points[None])
    Image.new("RGB", (64, 64), "grey").save(tmp_path / "me.jpg")
    result = command(generator, "--photo", tmp_path / "me.jpg", "--weights", "celeba64", "--out", tmp_path / "out")
    assert result.status == 0 and np.load(tmp_path / "out" / "me.npy").shape == (100,)
    assert Image.open(tmp_path / "out" / "me.png").size == (128, 64)


def test_a_result_replaces_no_photo_and_no_other_result(command, tmp_path):
    for name in ("me.png", "other/me.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"photo")
    for photos in (["me.png"], ["other/me.jpg", "me.png"]):
        result = command(generator, "--photo", *(tmp_path / name for name in photos), "--weights", "celeba64", "--out", tmp_path)
        assert result.status == 2 and "would replace" in result.err and result.err.count("\n") == 1
    assert (tmp_path / "me.png").read_bytes() == b"photo"


def test_faces_along_a_direction_have_more_of_its_attribute(pretrained, monkeypatch):
    monkeypatch.setattr(directions, "FACES", 500)
    monkeypatch.setattr(directions, "JUDGED", 50)
    found = directions.Directions(pretrained)
    male = directions.attribute_names().index("Male")
    for kept in ([], ["Smiling", "Young"]):
        along = found.along("Male", kept)
        less, more = (directions.shares_with(pretrained, along, strength)[male] for strength in (-3, 3))
        assert less < 0.2 and more > 0.8
        assert along @ along == pytest.approx(1, abs=1e-5) and all(abs(along @ found.rows[name]) < 1e-5 for name in kept)


def test_the_command_for_directions(command, tmp_path, monkeypatch):
    monkeypatch.setattr(directions, "FACES", 200)
    monkeypatch.setattr(contrast, "JUDGED", 20)
    out = tmp_path / "direction.png"
    result = command(contrast, "--direction", "Smiling", "--strengths", "-2,0,2", "--n", 3, "--weights", "celeba64", "--out", out)
    assert result.status == 0 and "have Smiling: " in result.out and " at -2" in result.out and out.exists()
    result = command(contrast, "--direction", "Smilling", "--weights", "celeba64")
    assert result.status == 2 and "perhaps Smiling?" in result.err


def test_a_sum_is_of_means(pretrained):
    terms = sums.parse_sum("1,5 - 3 + 2,4-6")
    assert [(term.sign, term.faces) for term in terms] == [(1, [1, 5]), (-1, [3]), (1, [2, 4, 5, 6])]
    z = face_inputs(pretrained.plan, range(7))
    wanted = z[[1, 5]].mean(axis=0) - z[3] + z[[2, 4, 5, 6]].mean(axis=0)
    assert sums.add_up(pretrained.plan, terms) == pytest.approx(wanted, abs=1e-6)
    nine = sums.around(pretrained.plan, wanted)
    assert (nine[4] == wanted).all() and abs(nine - wanted).max() <= sums.SPREAD and (nine[0] != wanted).all()
    for text in ("1,5", "1-5", "1 -", "", "x - 3"):
        with pytest.raises(argparse.ArgumentTypeError):
            sums.parse_sum(text)


def test_a_term_may_name_attributes(pretrained, monkeypatch):
    monkeypatch.setattr(sums, "SEARCHED", 200)
    term, other = sums.find_terms(pretrained, sums.parse_sum("Male=1,Smiling=-1 - 7"))
    assert other.faces == [7] and len(term.faces) == sums.GROUP
    judged = directions.attribute_logits(draw_faces(pretrained, face_inputs(pretrained.plan, term.faces)))
    names = directions.attribute_names()
    assert (judged[:, names.index("Male")] > 0).all() and (judged[:, names.index("Smiling")] < 0).all()
    with pytest.raises(UserError, match="fewer than"):
        sums.find_terms(pretrained, sums.parse_sum("Bald=1,Wearing_Lipstick=1,Wearing_Hat=1 - 7"))
    with pytest.raises(UserError, match="no such attribute"):
        sums.find_terms(pretrained, sums.parse_sum("Mail=1 - 7"))


def test_a_latent_of_a_conditional_generator_keeps_its_labels(pretrained):
    plan = pretrained.plan._replace(labels={"A": [1, -1], "B": [-1, -1]})
    row = face_inputs(plan, [5])[0]
    assert (face_inputs(plan, [Latent("me", row)], {"A": -row[100]})[0] == [*row[:100], -row[100], row[101]]).all()
