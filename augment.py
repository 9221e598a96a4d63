"""Differentiable augmentation (Zhao et al. 2020): D sees reals and fakes changed at random, in both updates.

With few faces D learns them by heart. It cannot when they are changed anew each time; and because the fakes are changed the
same way, and gradients pass through the changes, G does not learn to draw changed faces.
"""
import numpy as np
import paddle

from randomness import draws

POLICIES = ("shift", "diffaugment")  # the second is the paper's for small sets: colours, shift and hole
SHIFT = 1 / 8  # of the picture's side, at most, in each direction
HOLE = 1 / 2  # of the picture's side


def chances(seed, purpose, update, count):
    """The random numbers for `count` pictures of one update: float32 [count, 8] in [0, 1), see `augment`."""
    return draws(seed, purpose, update).random((count, 8), dtype=np.float32)


def augment(pictures, chances, policy, p):
    """Changes float32 pictures [N, 3, S, S] in [-1, 1] by one of POLICIES, each with probability `p`, by its row of `chances`.

    The result may leave that range. The columns decide whether; brightness, saturation, contrast; the shift down and to the
    right; the hole's centre from top and left.
    """
    changed = chances[:, :1] < p
    brightness, saturation, contrast, down, right = np.where(changed, chances[:, 1:6], np.float32(0.5)).T  # 0.5 changes nothing
    if policy == "shift":
        return shift(pictures, down, right)
    pictures = shift(recolour(pictures, brightness, saturation, contrast), down, right)
    return cut_hole(pictures, *chances[:, 6:].T, changed)


def recolour(pictures, brightness, saturation, contrast):
    """Adds -0.5 to 0.5, multiplies the distance from grey by 0 to 2, and that from the picture's mean by 0.5 to 1.5.

    The three together are one affine map of a pixel's colours, which is much faster than one after the other.
    """
    brightness, saturation, contrast = (x.reshape([-1, 1, 1]) for x in (brightness - 0.5, 2 * saturation, contrast + 0.5))
    mix = contrast * (saturation * np.eye(3, dtype=np.float32) + (1 - saturation) / 3)  # [N, 3, 3]
    flat = pictures.flatten(2)
    means = pictures.flatten(1).mean(axis=1).reshape([-1, 1, 1])
    changed = paddle.matmul(paddle.to_tensor(mix), flat) + (means * paddle.to_tensor(1 - contrast) + paddle.to_tensor(brightness))
    return changed.reshape(pictures.shape)


def shift(pictures, down, right):
    """Moves each picture by up to 1/8 of its side; grey (0) comes in.

    As products with matrices that have a 1 in each row, beside the diagonal.
    """
    size = pictures.shape[2]
    place, most = np.arange(size), int(size * SHIFT)
    down, right = (np.floor(chance * (2 * most + 1)).reshape([-1, 1, 1, 1]) - most for chance in (down, right))
    rows, columns = (paddle.to_tensor((place[:, None] == place + distance).astype(np.float32)).expand([-1, 3, -1, -1])
                     for distance in (down, right))
    return paddle.matmul(paddle.matmul(rows, pictures), columns, transpose_y=True)


def cut_hole(pictures, top, left, which):
    """Makes a square of half the side grey (0), centred anywhere and cut off at the edges, where `which` [N, 1] is true."""
    size = pictures.shape[2]
    place, half = np.arange(size), int(size * HOLE) // 2
    in_rows, in_columns = (np.abs(place + 0.5 - np.floor(chance * (size + 1))[:, None]) < half for chance in (top, left))
    hole = (which & in_rows)[:, None, :, None] & in_columns[:, None, None, :]
    return pictures * paddle.to_tensor((~hole).astype(np.float32))
