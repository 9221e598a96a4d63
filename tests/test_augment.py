import numpy as np
import paddle
import pytest

from augment import POLICIES, augment, changes

UNCHANGED = [0, 0.5, 0.5, 0.5, 0.5, 0.5, 0, 0]  # but for the hole, in the upper left corner


def faces(count=3, size=16):
    return np.random.default_rng(0).uniform(-1, 1, (count, 3, size, size)).astype(np.float32)


def changed(pictures, *rows, policy="diffaugment", p=1):
    return augment(paddle.to_tensor(pictures), wanted_changes(pictures, rows, policy, p), policy).numpy()


def wanted_changes(pictures, rows, policy="diffaugment", p=1):
    return paddle.to_tensor(changes(np.array(rows, np.float32), policy, p, pictures.shape[2]))


def test_one_picture_by_hand():
    """Brightness, saturation, contrast, shift and hole, one after the other as the paper has them."""
    [face] = faces(1)
    numbers = [0.4, 0.9, 0.2, 0.7, 0.99, 0.3, 0.6, 0.95]
    wanted = face + 0.4
    wanted = wanted.mean(axis=0) + (wanted - wanted.mean(axis=0)) * 0.4
    wanted = wanted.mean() + (wanted - wanted.mean()) * 1.2
    moved = np.zeros_like(wanted)  # of -2 … 2, by 2 down and 1 to the left
    moved[:, 2:, :-1] = wanted[:, :-2, 1:]
    moved[:, 10 - 4:10 + 4, 16 - 4:] = 0  # the centre is one of 0 … 16 in each direction
    assert changed(face[None], numbers)[0] == pytest.approx(moved, abs=1e-5)


def test_shift_alone():
    [face] = faces(1)
    moved = np.zeros_like(face)
    moved[:, 2:, :-1] = face[:, :-2, 1:]
    assert (changed(face[None], [0.4, 0.9, 0.2, 0.7, 0.99, 0.3, 0.6, 0.95], policy="shift")[0] == moved).all()


def test_each_picture_has_its_own_changes():
    pictures = faces()
    rows = [UNCHANGED, [0.9] * 8, [0.1] * 8]
    for picture, row, together in zip(pictures, rows, changed(pictures, *rows)):
        assert changed(picture[None], row)[0] == pytest.approx(together, abs=1e-6)
    assert changed(pictures, *[UNCHANGED] * 3)[:, :, 4:] == pytest.approx(pictures[:, :, 4:], abs=1e-6)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_picture_is_changed_with_probability_p(policy):
    pictures, rows = faces(2), [[0.4] + [0.9] * 7, [0.6] + [0.9] * 7]
    half = changed(pictures, *rows, policy=policy, p=0.5)
    assert (half[0] == changed(pictures, *rows, policy=policy)[0]).all() and (half[0] != pictures[0]).any()
    assert half[1] == pytest.approx(pictures[1], abs=1e-6)


def test_gradients_come_through_where_the_picture_does():
    pictures = paddle.to_tensor(faces(1))
    pictures.stop_gradient = False
    augment(pictures, wanted_changes(pictures, [UNCHANGED]), "diffaugment").sum().backward()
    gradient = pictures.grad.numpy()[0]
    assert gradient[:, :4, :4] == pytest.approx(0, abs=1e-6) and gradient[:, 4:, 4:] == pytest.approx(1, abs=1e-6)
