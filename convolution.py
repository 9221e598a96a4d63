"""Paddle's two convolutions, computed faster on a CPU where the map is small: same weights, same result. And one that resizes.

On a CPU Paddle multiplies picture by picture. Where the smaller map has few positions (4×4 and 1×1 at the networks' deep
end) those matrices are so narrow that most of the time is lost; here the whole batch makes one wide product. A convolution
is the product of the weights and the patches of the picture ("im2col", Chellapilla et al. 2006), and a transposed
convolution adds the patches up again.
"""
from contextlib import contextmanager

import paddle
import paddle.nn as nn
import paddle.nn.functional as F

FEW_POSITIONS = 16  # 4×4; on larger maps Paddle's own way is as fast and takes less memory
needed_twice = False  # whether gradients of gradients are asked for


@contextmanager
def twice_differentiable():
    """Inside the block, gradients can be differentiated again, for which Paddle's patches (unfold, fold) are not made."""
    global needed_twice
    needed_twice = True
    try:
        yield
    finally:
        needed_twice = False


def by_the_batch(layer, x, positions):
    """Whether to multiply the whole batch at once.

    Only in training: there a picture's last bits depend on its batch anyway, through batch normalisation. In evaluation a
    picture must come out the same, to the last bit, alone or among a thousand.
    """
    return layer.training and not needed_twice and x.place.is_cpu_place() and positions <= FEW_POSITIONS


class Conv2D(nn.Conv2D):
    """`paddle.nn.Conv2D` for square maps: float32 [N, inputs, H, H] → [N, outputs, h, h]."""

    def __init__(self, inputs, outputs, kernel, stride, padding, weight_attr, bias=False):
        super().__init__(inputs, outputs, kernel, stride, padding, weight_attr=weight_attr,
                         bias_attr=None if bias else False)
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def forward(self, x):
        size = (x.shape[2] + 2 * self.padding - self.kernel) // self.stride + 1
        if not by_the_batch(self, x, size * size):
            return super().forward(x)
        patches = F.unfold(x, self.kernel, self.stride, self.padding).transpose([0, 2, 1])  # [N, h·h, inputs·kernel²]
        y = paddle.matmul(patches, self.weight.reshape([len(self.weight), -1]), transpose_y=True)
        if self.bias is not None:
            y = y + self.bias
        return y.transpose([0, 2, 1]).reshape([len(x), -1, size, size])


class Conv2DTranspose(nn.Conv2DTranspose):
    """`paddle.nn.Conv2DTranspose` for square maps: float32 [N, inputs, h, h] → [N, outputs, H, H].

    A kernel that falls short of doubling the size by one row and column, as 5×5 does, gets them at the lower right.
    """

    def __init__(self, inputs, outputs, kernel, stride, padding, weight_attr, bias=False):
        super().__init__(inputs, outputs, kernel, stride, padding, weight_attr=weight_attr,
                         bias_attr=None if bias else False)
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.added = max(0, stride + 2 * padding - kernel)

    def kernels(self):
        """The weights as they are applied: float32 [inputs, outputs, kernel, kernel]."""
        return self.weight

    def forward(self, x):
        size = x.shape[2]
        weights = self.kernels()
        if not by_the_batch(self, x, size * size):
            return F.conv2d_transpose(x, weights, self.bias, self.stride, self.padding, self.added)
        weights = weights.reshape([len(weights), -1])
        patches = paddle.matmul(x.flatten(2).transpose([0, 2, 1]), weights)  # [N, h·h, outputs·kernel²]
        size = (size - 1) * self.stride - 2 * self.padding + self.kernel + self.added
        y = F.fold(patches.transpose([0, 2, 1]), [size, size], self.kernel, self.stride, self.padding)
        return y if self.bias is None else y + self.bias.reshape([-1, 1, 1])


class ResizeConv2D(Conv2DTranspose):
    """Repeats each pixel 2×2 times, then convolves with 3×3 weights: float32 [N, inputs, h, h] → [N, outputs, 2h, 2h].

    That is the transposed convolution of stride 2 whose 4×4 kernel is the 3×3 one smeared over 2×2 pixels. Computed so it takes
    less than half the multiplications. (The weights lie mirrored to those of a convolution, as a transposed one has them.)
    """

    def __init__(self, inputs, outputs, weight_attr):
        super().__init__(inputs, outputs, 3, 2, 1, weight_attr)
        self.kernel, self.added = 4, 0  # as applied

    def kernels(self):
        """The 3×3 weights, smeared: float32 [inputs, outputs, 4, 4]."""
        rows = F.pad(self.weight, [0, 0, 0, 1]) + F.pad(self.weight, [0, 0, 1, 0])
        return F.pad(rows, [0, 1, 0, 0]) + F.pad(rows, [1, 0, 0, 0])
