"""Pictures and films of a generator: contrasts, interpolations, sweeps, neighbours."""
import numpy as np
import pytest
from PIL import Image

import contrast
from dataReader import DataReader
from network import draw_faces
from training import checkpoint
from training.randomness import face_inputs
from zoo import Plan, build_generator

FACTS = {"arch": "dcgan", "size": 16, "z_dim": 8, "channels": 4, "up": "deconv", "noise": "normal", "labels": {},
         "where": "", "pictures": "", "step": 1, "images_seen": 1, "data": "nothing", "seed": 0, "scores": {}}


@pytest.fixture
def made():
    return build_generator(Plan(size=16, z_dim=8, channels=4))


@pytest.fixture
def show(made, tmp_path, command):
    """show("--walk", "1,2") draws tmp_path/shown.png (or another name given as out)."""
    checkpoint.save_generator(tmp_path / "weights.safetensors", made, FACTS)
    return lambda *arguments, out="shown.png": command(
        contrast, "--device", "cpu", "--weights", tmp_path / "weights.safetensors", "--out", tmp_path / out, *arguments)


@pytest.fixture
def shown(monkeypatch):
    """The named rows of faces that the figure was made of."""
    rows = {}
    monkeypatch.setattr(contrast.figures, "save_rows", lambda path, named: rows.update(named))
    return rows


def frames(path):
    film = Image.open(path)
    return [np.asarray(film.convert("RGB")) for film.n in range(film.n_frames) if film.seek(film.n) is None]


def faces_of(made, *seeds):
    return draw_faces(made, face_inputs(made.plan, seeds))


def test_real_and_generated_side_by_side(show, faces16, tmp_path):
    assert show("--data", faces16, "--n", 9).status == 0
    left, right = np.split(np.asarray(Image.open(tmp_path / "shown.png").convert("RGB")).astype(int), 2, axis=1)
    middle = slice(200, 700)
    assert left[middle, middle].std() > 20 and abs(left - right).mean() > 10
    assert (left[:60] < 128).any() and (right[:60] < 128).any()  # the titles


def test_an_interpolation_passes_through_the_faces_of_its_seeds(show, made, tmp_path):
    assert show("--walk", "3,5,8").status == 0
    strip = np.asarray(Image.open(tmp_path / "shown.png"))
    stops = strip.reshape(16, -1, 16, 3).transpose(1, 0, 2, 3)[::contrast.IN_STRIP]
    assert (stops == faces_of(made, 3, 5, 8)).all()
    assert show("--walk", "3,5", out="walk.gif").status == 0
    film = frames(tmp_path / "walk.gif")  # from 3 to 5 and back
    assert len(film) == 2 * contrast.FRAMES and film[0].shape == (256, 256, 3)
    assert abs(film[contrast.FRAMES].astype(int)[::16, ::16] - faces_of(made, 5)[0]).mean() < 12  # a .gif has 256 colours


def test_a_film_that_ffmpeg_cannot_finish_leaves_the_old_one(show, tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    resource = pytest.importorskip("resource")
    assert show("--walk", "1,2", out="walk.mp4").status == 0
    film = (tmp_path / "walk.mp4").read_bytes()
    assert ffmpeg.count_frames_and_secs(tmp_path / "walk.mp4")[0] == 2 * contrast.FRAMES
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(film) // 2, limits[1]))  # as if the disk were full
    try:
        result = show("--walk", "1,2", out="walk.mp4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result.status == 1 and "ffmpeg wrote" in result.err and result.err.count("\n") == 1
    assert (tmp_path / "walk.mp4").read_bytes() == film and not list(tmp_path.glob(".writing-*"))


def test_a_sweep_changes_one_number_at_a_time(show, made, shown):
    assert show("--sweep", "0,7", "--seed", 4).status == 0
    assert list(shown) == ["z[0]", "z[7]"]
    inputs = face_inputs(made.plan, [4]).repeat(3, axis=0)
    inputs[:, 7] = (-3, 0, 3)
    assert (shown["z[7]"][[0, 4, 8]] == draw_faces(made, inputs)).all()
    result = show("--sweep", "8")
    assert result.status == 2 and "0 to 7" in result.err


def test_a_run_becomes_a_film(show, tmp_path):
    (tmp_path / "run" / "samples").mkdir(parents=True)
    for number, level in enumerate((0, 100, 200)):
        Image.new("RGB", (32, 32), (level,) * 3).save(tmp_path / "run" / "samples" / f"0001_{number:06d}.png")
    assert show("--timelapse", tmp_path / "run", out="run.gif").status == 0
    film = frames(tmp_path / "run.gif")
    assert [film[i].mean() for i in (0, 1, 2)] == pytest.approx([0, 100, 200], abs=2)
    (tmp_path / "run" / "samples" / "0001_000009.png").write_bytes(b"damaged")
    result = show("--timelapse", tmp_path / "run", out="run.gif")
    assert result.status == 2 and "0001_000009.png: not a picture" in result.err
    assert len(frames(tmp_path / "run.gif")) == len(film)
    assert "samples" in show("--timelapse", tmp_path / "nowhere", out="run.gif").err
    assert "one picture" in show("--timelapse", tmp_path / "run").err


def test_neighbours_are_the_nearest_training_faces(show, shown, faces16, monkeypatch):
    training = DataReader(faces16, 1)
    copied = training.faces[training.rows[[7, 30]]]
    monkeypatch.setattr(contrast, "draw_faces", lambda *_: copied)
    result = show("--neighbours", "--data", faces16, "--n", 2)
    assert result.status == 0 and "0 to 0 grey levels" in result.out
    assert (shown["nearest training face"] == copied).all()


@pytest.mark.parametrize("arguments, out, said", [
    (("--walk", "1"), "a.gif", "two seeds"), (("--walk", "1,b"), "a.gif", "0,4-6"), (("--sweep", "0"), "a.gif", "not a film"),
    (("--walk", "1,2"), "a.txt", ".png"), (("--walk", "1,2", "--sweep", "0"), "a.png", "not allowed with"),
    (("--walk", "1,2", "--n", 3), "a.gif", "--n does not go with --walk"), (("--strengths", "1"), "a.png", "--direction")])
def test_bad_input_gets_a_sentence(show, tmp_path, arguments, out, said):
    result = show(*arguments, out=out)
    assert result.status == 2 and said in result.err and not (tmp_path / out).exists()
