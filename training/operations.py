"""What the layers of a network compute on a CPU, by oneDNN: each operation beside its derivative. Convolutions are next door.

Pictures are Arrays [N, H, W, C] of a `dtype` (onednn.FLOAT32 or BFLOAT16); weights, statistics, and the gradients of weights are
float32 in both. `dy` is the gradient of a loss with respect to an operation's output, `dx` with respect to its input.
An operation is made for given shapes, and kept, because compiling it takes milliseconds.
"""
import math
from ctypes import c_float
from functools import lru_cache

import paddle

from training.onednn import (
    ADD,
    BACKWARD,
    D_SCALE,
    D_SHIFT,
    D_SOURCE,
    D_TARGET,
    FLOAT32,
    MAXIMUM,
    MEAN,
    NEAREST,
    SCALE,
    SHIFT,
    SOURCE,
    SOURCE_1,
    SUM,
    TARGET,
    TRAINING,
    VARIANCE,
    WORKSPACE,
    Array,
    Layout,
    Primitive,
    copy,
    copying,
    integers,
    library,
)

FIXED, SCALED, SHIFTED, WITH_RELU = 1, 2, 4, 8  # flags of batch normalisation

once = lru_cache(maxsize=1000)  # the same arguments give the same object; some fifty belong to a network and a batch size


@once
def pictures(shape, dtype):
    """The layout of [N, H, W, C], whose dimensions the library counts as N, C, H, W, wherever they lie."""
    batch, height, width, channels = shape
    return Layout((batch, channels, height, width), dtype, (height * width * channels, 1, width * channels, channels))


@once
def plain(shape):
    """The layout of a Paddle tensor, float32."""
    return Layout(shape, FLOAT32)


def new(shape):
    """A new Paddle tensor, float32, and the Array that writes into it."""
    tensor = paddle.empty(shape, "float32")
    return tensor, Array(plain(tuple(shape)), tensor)


def enter(x, dtype):
    """A float32 tensor [N, C, H, W] → pictures [N, H, W, C] of a dtype."""
    batch, channels, height, width = x.shape
    return copy(Array(plain(tuple(x.shape)), x), pictures((batch, height, width, channels), dtype))


def leave(x, shape):
    """Pictures of that shape [N, H, W, C] → a float32 tensor [N, C, H, W]."""
    batch, height, width, channels = shape
    tensor, y = new((batch, channels, height, width))
    copy(x, y)
    return tensor


@once
class Bias:
    """A number for each channel, a float32 tensor [C], added to pictures [N, H, W, C]."""

    def __init__(self, shape, dtype):
        whole, self.channels = pictures(shape, dtype), shape[3]
        self.layout = Layout((1, self.channels, 1, 1), FLOAT32)
        self.adding = Primitive("binary", library().engine, ADD, whole, self.layout, whole,
                                layouts={SOURCE: whole, SOURCE_1: self.layout, TARGET: whole})
        alone = math.prod(shape) == self.channels  # a single position, which the library would not sum up
        self.summing = copying(whole, self.layout) if alone else Primitive(
            "reduction", library().engine, SUM, whole, self.layout, 0.0, 0.0, layouts={SOURCE: whole, TARGET: self.layout})

    def forward(self, x, bias):
        """y, in place of x."""
        self.adding({SOURCE: x, SOURCE_1: Array(self.layout, bias), TARGET: x})
        return x

    def backward(self, dy):
        """The gradient with respect to the bias, float32 [C]; dx is dy."""
        tensor = paddle.empty([self.channels], "float32")
        self.summing({SOURCE: dy, TARGET: Array(self.layout, tensor)})
        return tensor


@once
class BatchNorm:
    """Batch normalisation (Ioffe & Szegedy 2015), and a ReLU behind it `with_relu`. All but the pictures are float32 tensors [C].

    fixed  the statistics are given, not the batch's
    """

    def __init__(self, shape, epsilon, fixed, with_relu, dtype):
        self.layout, self.channels, engine = pictures(shape, dtype), (shape[3],), library().engine
        flags, numbers = SCALED | SHIFTED | (FIXED * fixed) | (WITH_RELU * with_relu), plain(self.channels)
        shared = {SOURCE: self.layout, MEAN: numbers, VARIANCE: numbers, SCALE: numbers}
        if with_relu:
            shared[WORKSPACE] = None  # which numbers were positive
        self.forward_ = Primitive("batch_normalization_forward", engine, TRAINING, self.layout, self.layout, epsilon, flags,
                                  layouts={**shared, TARGET: self.layout, SHIFT: numbers})
        self.backward_ = Primitive(
            "batch_normalization_backward", engine, BACKWARD, self.layout, self.layout, self.layout, epsilon, flags,
            self.forward_.descriptor,
            layouts={**shared, D_TARGET: self.layout, D_SOURCE: self.layout, D_SCALE: numbers, D_SHIFT: numbers})
        self.workspace = self.forward_.layouts.get(WORKSPACE)

    def forward(self, x, scale, shift, mean, variance):
        """y, and what `backward` takes. Writes the batch's mean and (biased) variance, unless they are fixed."""
        mean, variance, scale, shift = (Array(plain(self.channels), tensor) for tensor in (mean, variance, scale, shift))
        y, shared = Array(self.layout), {SOURCE: x, MEAN: mean, VARIANCE: variance, SCALE: scale}
        if self.workspace:
            shared[WORKSPACE] = Array(self.workspace)
        self.forward_({**shared, SHIFT: shift, TARGET: y})
        return y, shared

    def backward(self, dy, shared):
        """dx, and the gradients with respect to scale and shift, float32 [C]."""
        (scale, d_scale), (shift, d_shift), dx = new(self.channels), new(self.channels), Array(self.layout)
        self.backward_({**shared, D_TARGET: dy, D_SOURCE: dx, D_SCALE: d_scale, D_SHIFT: d_shift})
        return dx, scale, shift


@once
class Activation:
    """onednn.RELU, with a slope for negative numbers (LeakyReLU), or onednn.TANH; in place.

    Their gradients are computed from their outputs, for which the slope must not be negative.
    """

    def __init__(self, kind, slope, shape, dtype):
        layout, engine = pictures(shape, dtype), library().engine
        self.forward_ = Primitive("eltwise_forward", engine, TRAINING, kind, layout, layout, slope, 0.0,
                                  layouts={SOURCE: layout, TARGET: layout})
        self.backward_ = Primitive("eltwise_backward", engine, kind, layout, layout, layout, slope, 0.0,
                                   self.forward_.descriptor, layouts={TARGET: layout, D_TARGET: layout, D_SOURCE: layout})

    def forward(self, x):
        """y, in place of x."""
        self.forward_({SOURCE: x, TARGET: x})
        return x

    def backward(self, dy, y):
        """dx, in place of dy."""
        self.backward_({TARGET: y, D_TARGET: dy, D_SOURCE: dy})
        return dy


@once
class Doubling:
    """Repeats each pixel 2×2 times: [N, H, W, C] → [N, 2H, 2W, C]."""

    def __init__(self, shape, dtype):
        batch, height, width, channels = shape
        self.large_shape, factors = (batch, 2 * height, 2 * width, channels), (c_float * 2)(2, 2)
        self.small, self.large, engine = pictures(shape, dtype), pictures(self.large_shape, dtype), library().engine
        self.forward_ = Primitive("resampling_forward", engine, TRAINING, NEAREST, factors, self.small, self.large,
                                  layouts={SOURCE: self.small, TARGET: self.large})
        self.backward_ = Primitive("resampling_backward", engine, NEAREST, factors, self.small, self.large,
                                   self.forward_.descriptor, layouts={D_SOURCE: self.small, D_TARGET: self.large})

    def forward(self, x):
        """x [N, H, W, C] → y [N, 2H, 2W, C]."""
        y = Array(self.large)
        self.forward_({SOURCE: x, TARGET: y})
        return y

    def backward(self, dy):
        """dy [N, 2H, 2W, C] → dx [N, H, W, C]."""
        dx = Array(self.small)
        self.backward_({D_TARGET: dy, D_SOURCE: dx})
        return dx


@once
class MaxPooling:
    """The largest of each 2×2 pixels: [N, H, W, C] → [N, H/2, W/2, C]; an odd last row or column is left out."""

    def __init__(self, shape, dtype):
        batch, height, width, channels = shape
        self.small_shape = (batch, height // 2, width // 2, channels)
        self.large, self.small, engine = pictures(shape, dtype), pictures(self.small_shape, dtype), library().engine
        steps = [integers(pair) for pair in ((2, 2), (2, 2), (0, 0), (0, 0), (0, 0))]  # stride, kernel, dilation, padding
        self.forward_ = Primitive("pooling_forward", engine, TRAINING, MAXIMUM, self.large, self.small, *steps,
                                  layouts={SOURCE: self.large, TARGET: self.small, WORKSPACE: None})
        self.backward_ = Primitive("pooling_backward", engine, MAXIMUM, self.large, self.small, *steps,
                                   self.forward_.descriptor,
                                   layouts={D_SOURCE: self.large, D_TARGET: self.small, WORKSPACE: None})

    def forward(self, x):
        """y, and which pixels were the largest."""
        y, which = Array(self.small), Array(self.forward_.layouts[WORKSPACE])
        self.forward_({SOURCE: x, TARGET: y, WORKSPACE: which})
        return y, which

    def backward(self, dy, which):
        """dy [N, H/2, W/2, C] → dx [N, H, W, C]."""
        dx = Array(self.large)
        self.backward_({D_TARGET: dy, WORKSPACE: which, D_SOURCE: dx})
        return dx
