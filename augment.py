"""Differentiable augmentation (Zhao et al. 2020): D sees reals and fakes changed at random, in both updates.

With few faces D memorises them. It cannot when they are changed anew each time; and because the fakes are changed the
same way, and gradients pass through the changes, G does not learn to draw changed faces.
"""
from functools import lru_cache

import numpy as np
import paddle

POLICIES = ("shift", "diffaugment")  # the second is the paper's for small sets: colours, shift and hole
SHIFT = 1 / 8  # of the picture's side, at most, in each direction
HOLE = 1 / 2  # of the picture's side


def changes(chances, policy, p, size):
    """How `augment` changes pictures of `size` px by one of POLICIES, each with probability `p`: float32 [N, columns].

    chances  float32 [N, 8] in [0, 1), a row a picture: whether; brightness, saturation, contrast; the shift down and to the
             right; the hole's centre from top and left

    The columns are the rows of `shift_matrices` that move the picture down and to the right; behind them, for diffaugment, the
    rows of `hole_sides` for top and left, the matrix that mixes the colours, and what is added of the picture's mean and of
    white.
    """
    changed = chances[:, :1] < p
    brightness, saturation, contrast, *moves = np.where(changed, chances[:, 1:6], np.float32(0.5)).T  # 0.5 changes nothing
    moves = [np.floor(move * (2 * int(size * SHIFT) + 1)) for move in moves]
    if policy == "shift":
        return np.stack(moves, axis=1)
    centres = np.where(changed, np.floor(chances[:, 6:] * (size + 1)), np.float32(size + 1))
    brightness, saturation, contrast = (x.reshape([-1, 1, 1]) for x in (brightness - 0.5, 2 * saturation, contrast + 0.5))
    mix = contrast * (saturation * np.eye(3, dtype=np.float32) + (1 - saturation) / 3)  # [N, 3, 3]
    return np.column_stack([*moves, centres, *(x.reshape([len(chances), -1]) for x in (mix, 1 - contrast, brightness))])


def augment(pictures, changes, policy):
    """Changes float32 pictures [N, 3, S, S] in [-1, 1] by one of POLICIES, each by its row of `changes`, float32 [N, columns].

    The result may leave that range.
    """
    if policy == "shift":
        return shift(pictures, changes)
    moves, centres, mix, grey, white = changes.split([2, 2, 9, 1, 1], axis=1)
    return cut_hole(shift(recolour(pictures, mix, grey, white), moves), centres)


def recolour(pictures, mix, grey, white):
    """Adds -0.5 to 0.5, multiplies the distance from grey by 0 to 2, and that from the picture's mean by 0.5 to 1.5.

    The three together are one affine map of a pixel's colours, which is much faster than one after the other.
    """
    mix, grey, white = (x.reshape([len(pictures), -1, side]) for x, side in ((mix, 3), (grey, 1), (white, 1)))
    means = pictures.flatten(1).mean(axis=1).reshape([-1, 1, 1])
    changed = paddle.matmul(mix, pictures.flatten(2)) + (means * grey + white)
    return changed.reshape(pictures.shape)


def shift(pictures, moves):
    """Moves each picture by up to 1/8 of its side; grey (0) comes in."""
    matrices = shift_matrices(pictures.shape[2], str(pictures.place))
    rows, columns = (paddle.gather(matrices, move) for move in moves.astype("int64").unbind(1))
    return paddle.matmul(paddle.matmul(rows, pictures), columns, transpose_y=True)


def cut_hole(pictures, centres):
    """Makes a square of half the side grey (0), centred anywhere and cut off at the edges."""
    sides = hole_sides(pictures.shape[2], str(pictures.place))
    rows, columns = (paddle.gather(sides, centre) for centre in centres.astype("int64").unbind(1))
    return pictures * (1 - rows.unsqueeze([1, 3]) * columns.unsqueeze([1, 2]))


# What pictures are multiplied with stays on the device that they are on; `device` is its name, so that each has its own. To copy
# it there in each step would take longer than the changes themselves.

@lru_cache(maxsize=4)
def shift_matrices(size, device):
    """From the farthest move back to the farthest move on, float32 [moves, 3, S, S]: a 1 in each row, beside the diagonal.

    The same three times, for a product with each colour.
    """
    place, most = np.arange(size), int(size * SHIFT)
    matrices = [place[:, None] == place + distance for distance in range(-most, most + 1)]
    return paddle.to_tensor(np.repeat(np.float32(matrices)[:, None], 3, axis=1))


@lru_cache(maxsize=4)
def hole_sides(size, device):
    """For a hole centred before each of the rows (or columns), behind the last, and for none, 1 where it is:
    float32 [S + 2, S]."""
    place, half = np.arange(size), int(size * HOLE) // 2
    sides = [np.abs(place + 0.5 - centre) < half for centre in range(size + 1)]
    return paddle.to_tensor(np.float32([*sides, np.zeros(size)]))
