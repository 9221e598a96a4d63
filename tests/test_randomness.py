import numpy as np
import pytest

from training import randomness
from training.randomness import between, face_inputs
from zoo import Plan


def test_draws_depend_on_their_key_alone():
    first = randomness.draws(7, "order", 3).random(5)
    randomness.draws(7, "order", 4).random(5)
    assert (randomness.draws(7, "order", 3).random(5) == first).all()
    for other in ((8, "order", 3), (7, "flip", 3), (7, "order", 4), (7, "order", 3, 0)):
        assert (randomness.draws(*other).random(5) != first).all()


def test_noise_is_standard_normal_and_a_face_keeps_its_own():
    z = randomness.noise(0, "z for D", 5, 200, 100)
    assert z.dtype == np.float32 and abs(z.mean()) < 0.03 and z.std() == pytest.approx(1, abs=0.03)
    assert (randomness.face_inputs(Plan(), [9, 4])[1] == randomness.face_inputs(Plan(), range(5))[4]).all()


@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_the_way_between_two_faces(kind):
    """From one to the other; for normal noise never nearer to 0 than they are."""
    plan = Plan(z_dim=100, noise=kind, labels={"Smiling": [1, -1]})
    one, other = face_inputs(plan, [1], {"Smiling": 1})[0], face_inputs(plan, [2], {"Smiling": -1})[0]
    way = between(plan, one, other, np.arange(10) / 10)
    assert np.allclose(way[0], one, atol=1e-5) and np.allclose(way[5, -1], 0) and way.dtype == np.float32
    norms = np.linalg.norm(way[:, :100], axis=1)
    assert (norms[5] > 0.95 * min(norms[0], norms[-1])) == (kind == "normal")
    assert np.allclose(between(plan, one, one, [0, 0.5, 1]), one)
