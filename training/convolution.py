"""Convolutions and transposed convolutions, and their gradients, on a CPU by oneDNN. See operations.py for the words."""
from functools import cached_property
from math import gcd

import numpy as np
import paddle

from training.onednn import (
    BFLOAT16,
    CONVOLUTION,
    D_SOURCE,
    D_TARGET,
    D_WEIGHTS,
    FLOAT32,
    SOURCE,
    TARGET,
    TRAINING,
    WEIGHTS,
    Array,
    Layout,
    Primitive,
    copy,
    copying,
    integers,
    library,
    product,
)
from training.operations import new, once, pictures, plain

# Measured on AMD Zen 4, where the networks' narrow ends lose most of the time.
MAX_POSITIONS = 16  # 4×4: on such small maps the library's gradient of bfloat16's weights takes twice as long as a product
MAX_CHANNELS = 4  # the library fills channels up to 16: for colours, three quarters of the work and more are lost


@once
class Kernels:
    """Weights [O, I, kh, kw] as a layer holds them, a float32 tensor → the kernels that a `Convolution` of a dtype takes,
    an Array."""

    def __init__(self, shape, dtype):
        outputs, inputs, height, width = self.shape = shape
        # A matrix [O, I] for each place of the kernel: from here the library reorders 16-bit numbers ten times as fast.
        self.by_place = Layout(shape, dtype, (inputs, 1, width * outputs * inputs, outputs * inputs))
        self.needs_no_copy = dtype == FLOAT32

    def forward(self, weights):
        """The kernels of these weights."""
        weights = Array(plain(self.shape), weights)
        return weights if self.needs_no_copy else copy(weights, self.by_place)

    def backward(self, d_kernels):
        """The gradient with respect to the weights, a float32 tensor, from that with respect to the kernels."""
        tensor, d_weights = new(self.shape)
        copy(d_kernels, d_weights)
        return tensor


@once
class SpreadKernels:
    """Like `Kernels`, but each number of the larger kernels is a sum of some of the weights [O, I, h, w].

    size    height and width of the kernels
    spread  for each place of the kernel, row by row, the share (0 or 1) that each of the h·w weights has in it
    """

    def __init__(self, shape, size, spread):
        outputs, inputs, height, width = self.shape = shape
        many, few, count = len(spread), height * width, outputs * inputs
        table = paddle.to_tensor(spread, "float32")
        self.table, self.backward_table = Array(plain((many, few)), table), Array(plain((few, many)), table.t().contiguous())
        self.weights, self.turned = Layout((few, count), FLOAT32, (1, few)), Layout((few, count), FLOAT32)
        self.kernels = Layout((many, count), FLOAT32)
        self.by_place = Layout((outputs, inputs, *size), FLOAT32, (inputs, 1, size[1] * count, count))
        self.spreading = product(self.table.layout, self.weights, self.kernels)
        self.gathering = product(self.backward_table.layout, self.kernels, self.turned)

    def forward(self, weights):
        """The kernels of these weights."""
        kernels = Array(self.by_place)
        self.spreading({SOURCE: self.table, WEIGHTS: Array(plain(self.shape), weights), TARGET: kernels})
        return kernels

    def backward(self, d_kernels):
        """The gradient with respect to the weights, a float32 tensor, from that with respect to the kernels."""
        turned, tensor = Array(self.turned), paddle.empty(self.shape, "float32")
        self.gathering({SOURCE: self.backward_table, WEIGHTS: copy(d_kernels, self.by_place), TARGET: turned})
        copy(turned, Array(self.weights, tensor))
        return tensor


@once
class Convolution:
    """A convolution [N, H, W, I] → [N, h, w, O], and the two products that are its gradients.

    A transposed convolution is the `backward_data` of the convolution that goes the other way; its gradients are the other two.

    shape    of the large side, (N, H, W, I)
    kernels  their shape, (O, I, kh, kw)
    stride   in both directions
    padding  (top, bottom, left, right)
    """

    def __init__(self, shape, kernels, stride, padding, dtype):
        (batch, height, width, _), (outputs, _, *kernel), (top, bottom, left, right) = shape, kernels, padding
        self.large, self.kernels, self.stride, self.padding, self.dtype = shape, kernels, stride, padding, dtype
        self.small = (batch, (height + top + bottom - kernel[0]) // stride + 1,
                      (width + left + right - kernel[1]) // stride + 1, outputs)
        self.source, self.target = pictures(self.large, dtype), pictures(self.small, dtype)
        self.steps = [integers(pair) for pair in ((stride, stride), (0, 0), (top, left), (bottom, right))]
        self.forward_ = Primitive("convolution_forward", library().engine, TRAINING, CONVOLUTION, self.source,
                                  Layout.any(kernels, dtype), None, self.target, *self.steps,
                                  layouts={SOURCE: self.source, WEIGHTS: None, TARGET: self.target})

    def forward(self, x, kernels):
        """x [N, H, W, I] → y [N, h, w, O]."""
        y = Array(self.target)
        self.forward_({SOURCE: x, WEIGHTS: copy(kernels, self.forward_.layouts[WEIGHTS]), TARGET: y})
        return y

    @cached_property
    def subpixel(self):
        """A faster way to compute dx, where there is one."""
        covers = all(max(self.padding) < size >= self.stride for size in self.kernels[2:])
        multiple = self.large[1:3] == tuple(self.stride * size for size in self.small[1:3])
        return Subpixel(self) if self.large[3] <= MAX_CHANNELS and self.stride > 1 and covers and multiple else None

    @cached_property
    def backward_data_(self):
        return Primitive("convolution_backward_data", library().engine, CONVOLUTION, self.source,
                         Layout.any(self.kernels, self.dtype), self.target, *self.steps, self.forward_.descriptor,
                         layouts={D_SOURCE: self.source, WEIGHTS: None, D_TARGET: self.target})

    def backward_data(self, dy, kernels):
        """dy [N, h, w, O] → dx [N, H, W, I]."""
        if self.subpixel:
            return self.subpixel(dy, kernels)
        dx = Array(self.source)
        self.backward_data_({D_TARGET: dy, WEIGHTS: copy(kernels, self.backward_data_.layouts[WEIGHTS]), D_SOURCE: dx})
        return dx

    @cached_property
    def backward_weights_(self):
        if self.dtype == BFLOAT16 and self.small[1] * self.small[2] <= MAX_POSITIONS:
            return PatchProduct(self)
        return Primitive("convolution_backward_weights", library().engine, CONVOLUTION, self.source,
                         Layout.any(self.kernels, FLOAT32), None, self.target, *self.steps, self.forward_.descriptor,
                         layouts={SOURCE: self.source, D_WEIGHTS: None, D_TARGET: self.target})

    def backward_weights(self, x, dy):
        """x and dy → the gradient with respect to the kernels, float32."""
        d_kernels = Array(self.backward_weights_.layouts[D_WEIGHTS])
        self.backward_weights_({SOURCE: x, D_TARGET: dy, D_WEIGHTS: d_kernels})
        return d_kernels


@once
class DenseConvolution:
    """A `Convolution` whose kernels cover the whole input, so that it and its gradients are products of matrices.

    As at the networks' narrow ends, z and the logit.
    """

    def __init__(self, shape, kernels, dtype):
        batch, height, width, inputs = self.large = shape
        outputs, numbers = kernels[0], height * width * inputs
        self.small, self.source, self.target = (batch, 1, 1, outputs), pictures(shape, dtype), Layout((batch, outputs), dtype)
        self.kernels, self.d_kernels = (Layout(kernels, kind, (numbers, 1, width * inputs, inputs)) for kind in (dtype, FLOAT32))
        x, turned = Layout((batch, numbers), dtype), Layout((numbers, outputs), dtype, (1, numbers))
        self.forward_ = product(x, turned, self.target)
        self.backward_data_ = product(self.target, Layout((outputs, numbers), dtype), x)
        self.backward_weights_ = product(Layout((outputs, batch), dtype, (1, outputs)), x, Layout((outputs, numbers), FLOAT32))

    def forward(self, x, kernels):
        """x [N, H, W, I] → y [N, h, w, O]."""
        y = Array(pictures(self.small, self.target.dtype))
        self.forward_({SOURCE: x, WEIGHTS: copy(kernels, self.kernels), TARGET: y})
        return y

    def backward_data(self, dy, kernels):
        """dy [N, h, w, O] → dx [N, H, W, I]."""
        dx = Array(self.source)
        self.backward_data_({SOURCE: dy, WEIGHTS: copy(kernels, self.kernels), TARGET: dx})
        return dx

    def backward_weights(self, x, dy):
        """x and dy → the gradient with respect to the kernels, float32."""
        d_kernels = Array(self.d_kernels)
        self.backward_weights_({SOURCE: dy, WEIGHTS: x, TARGET: d_kernels})
        return d_kernels


def make_convolution(shape, kernels, stride, padding, dtype):
    """The `Convolution` for these arguments, or an operation that computes the same faster."""
    if kernels[2:] == tuple(shape[1:3]) and not any(padding):
        return DenseConvolution(shape, kernels, dtype)
    return Convolution(shape, kernels, stride, padding, dtype)


class PatchProduct:
    """The gradient of a convolution's kernels as one product, of dy and the input's patches ("im2col", Chellapilla et al. 2006).

    Called like a primitive.
    """

    def __init__(self, convolution):
        (batch, height, width, inputs), (_, rows, columns, outputs) = convolution.large, convolution.small
        (_, _, *kernel), stride, (top, bottom, left, right) = convolution.kernels, convolution.stride, convolution.padding
        dtype, positions, patch = convolution.dtype, batch * rows * columns, kernel[0] * kernel[1] * inputs
        line = (width + left + right) * inputs
        picture = (height + top + bottom) * line
        self.padded, self.patches = Layout((batch, picture), dtype), Layout((positions, patch), dtype)
        self.inside = Layout((batch, height, width * inputs), dtype, (picture, line, 1), self.padded, top * line + left * inputs)
        self.whole = Layout((batch, height, width * inputs), dtype)
        # Pixels side by side are copied together, as many as do not overlap with those of the next position.
        some = gcd(kernel[1], stride)
        chunk = (batch, rows, columns, some * inputs)
        self.cuts = [
            copying(Layout(chunk, dtype, (picture, stride * line, stride * inputs, 1), self.padded, row * line + column * inputs),
                    Layout(chunk, dtype, (rows * columns * patch, columns * patch, patch, 1), self.patches,
                           (row * kernel[1] + column) * inputs))
            for row in range(kernel[0]) for column in range(0, kernel[1], some)]
        self.product = product(Layout((outputs, positions), dtype, (1, outputs)), self.patches, Layout((outputs, patch), FLOAT32))
        self.layouts = {D_WEIGHTS: Layout(convolution.kernels, FLOAT32, (patch, 1, kernel[1] * inputs, inputs))}

    def __call__(self, arrays):
        padded, patches = Array(self.padded), Array(self.patches)
        padded.memory.fill(0)
        copying(self.whole, self.inside)({SOURCE: arrays[SOURCE], TARGET: padded})
        for cut in self.cuts:
            cut({SOURCE: padded, TARGET: patches})
        self.product({SOURCE: arrays[D_TARGET], WEIGHTS: patches, TARGET: arrays[D_WEIGHTS]})


class Subpixel:
    """dx of a convolution with few inputs, such as colours, as one convolution and a rearrangement (Shi et al. 2016).

    Of each stride × stride pixels of dx, all are outputs of a convolution of dy at one place. The library fills up channels to
    16: with 3 at a time most of its work is lost, with 12 little.
    """

    def __init__(self, convolution):
        (batch, height, width, outputs), inputs, stride = convolution.small, convolution.large[3], convolution.stride
        (_, _, *kernel), padding = convolution.kernels, convolution.padding
        # dx at stride · p + part takes dy at p + step by the kernel's number stride · -step + part + padding, if there is one.
        places = [{(part, (part + before - number) // stride): number for part in range(stride) for number in range(size)
                   if (part + before - number) % stride == 0} for size, before in zip(kernel, (padding[0], padding[2]))]
        steps = [range(min(step for _, step in axis), max(step for _, step in axis) + 1) for axis in places]
        rows, columns = ([[axis.get((part, step), size) for step in reach] for part in range(stride)]
                         for axis, reach, size in zip(places, steps, kernel))
        self.rows, self.columns = np.array(rows)[:, None, :, None], np.array(columns)[None, :, None, :]
        self.plain, self.size = plain(convolution.kernels), kernel
        self.forward = Convolution(
            convolution.small, (stride * stride * inputs, outputs, *map(len, steps)), 1,
            (-steps[0][0], steps[0][-1], -steps[1][0], steps[1][-1]), convolution.dtype)
        self.kernels = plain(self.forward.kernels)
        shape, parts, pixels = (batch, height, stride, width, stride * inputs), stride * stride * inputs, stride * inputs
        self.arrange = copying(
            Layout(shape, convolution.dtype, (height * width * parts, width * parts, pixels, parts, 1)),
            Layout(shape, convolution.dtype, (height * width * parts, stride * width * pixels, width * pixels, pixels, 1)))
        self.target = convolution.source

    def __call__(self, dy, kernels):
        given = copy(kernels, self.plain).memory.view(np.float32).reshape(self.forward.kernels[1], -1, *self.size)
        with_zeros = np.pad(given, ((0, 0), (0, 0), (0, 1), (0, 1)))  # for places that the kernel does not reach
        parts = with_zeros[:, :, self.rows, self.columns]  # [O, I, parts, parts, steps, steps]
        moved, dx = Array(self.kernels), Array(self.target)
        moved.memory.view(np.float32)[:] = parts.transpose(2, 3, 1, 0, 4, 5).ravel()
        self.arrange({SOURCE: self.forward.forward(dy, moved), TARGET: dx})
        return dx
