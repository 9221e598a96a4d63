from support.cli import UserError

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from scipy.ndimage import gaussian_filter

from network import draw_faces
from scoring import facefeatures
from scoring.facefeatures import face_features
from scoring.fid import frechet_distance
from scoring.neighbours import neighbour_scores
from training.checkpoint import load_generator
from training.randomness import face_inputs
from training.weights import PRETRAINED


@pytest.fixture(scope="module")
def faces():
    """600 faces that the pretrained generator draws."""
    generator, _ = load_generator(PRETRAINED)
    return draw_faces(generator, face_inputs(generator.plan, range(600)))


def distance(some, others):
    return frechet_distance(face_features(some), face_features(others))


def test_the_distance_grows_with_what_is_wrong(faces):
    reals, others = faces[:300], faces[300:]
    blurred = [gaussian_filter(others, (0, deviation, deviation, 0)) for deviation in (1, 2, 4)]
    mixed = np.concatenate([others[:, :, :32], np.roll(others, 1, axis=0)[:, :, 32:]], axis=2)  # halves of two faces
    floor = distance(others, reals)
    distances = [distance(some, reals) for some in blurred]
    assert distances == sorted(distances) and distances[0] > 1.2 * floor and distance(mixed, reals) > 1.2 * floor


def test_recall_falls_with_variety_and_precision_does_not(faces):
    reals, others = map(face_features, (faces[:300], faces[300:]))
    collapsed = others[:30].repeat(10, axis=0)
    all_kinds, few = neighbour_scores(others, reals), neighbour_scores(collapsed, reals)
    assert few["recall"] == 0 and few["coverage"] < 0.6 * all_kinds["coverage"]
    assert all_kinds["precision"] > 0.5 and few["precision"] == pytest.approx(all_kinds["precision"], abs=0.2)


@pytest.mark.parametrize("size", [28, 48, 128])
def test_faces_of_other_sizes_are_seen_alike(faces, size):
    pictures = paddle.to_tensor(faces[:20].transpose(0, 3, 1, 2).astype(np.float32))
    resized = F.interpolate(pictures, [size, size], mode="bilinear" if size > 64 else "area").round().numpy()
    seen = face_features(resized.transpose(0, 2, 3, 1).astype(np.uint8))
    others = face_features(faces[:20])
    gaps = ((seen[:, None] - others) ** 2).mean(axis=2)
    assert (gaps.argmin(axis=1) == np.arange(20)).mean() > 0.8


def test_a_face_is_seen_alike_whatever_is_beside_it(faces):
    assert face_features(faces[:3]) == pytest.approx(face_features(faces[:150])[:3], abs=1e-4)


def test_other_files_are_no_weights(tmp_path):
    with pytest.raises(UserError, match="no such file; git checkout"):
        facefeatures.load_features(tmp_path / "none.safetensors")
    with pytest.raises(UserError, match="damaged"):
        facefeatures.load_features(PRETRAINED)
