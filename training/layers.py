"""The layers of the networks: Paddle's own, computed by oneDNN where that is faster, which is on x86 CPUs.

A network is a list of layers; `run` takes pictures through it. On a GPU, on another processor, and where gradients of gradients
are needed, that calls one layer after the other. On an x86 CPU, it computes the same from the same weights with
the operations of operations.py; between the layers the pictures then stay in that library's order, [N, H, W, C].
"""
from contextlib import contextmanager
from types import SimpleNamespace

import paddle
import paddle.nn as nn
import paddle.nn.functional as F

from training import onednn, operations
from training.onednn import BFLOAT16, FLOAT32, RELU, TANH
from training.operations import (Activation, BatchNorm, Bias, Doubling, Kernels, MaxPooling, SpreadKernels, enter,
                                 leave)

state = SimpleNamespace(dtype=FLOAT32, twice=False)


@contextmanager
def computing_in(precision):
    """Inside the block the pictures between layers that oneDNN computes are float32 or bfloat16; weights stay float32."""
    before, state.dtype = state.dtype, {"float32": FLOAT32, "bfloat16": BFLOAT16}[precision]
    try:
        yield
    finally:
        state.dtype = before


@contextmanager
def twice_differentiable():
    """Inside the block gradients can be differentiated again, which takes Paddle's own layers."""
    state.twice = True
    try:
        yield
    finally:
        state.twice = False


class Sequential(nn.Sequential):
    """A list of layers through which `run` takes its input."""

    def forward(self, x):
        return run(list(self), x)


class ResizeConv2D(nn.Conv2DTranspose):
    """Repeats each pixel 2×2 times, then convolves with 3×3 weights: float32 [N, inputs, h, h] → [N, outputs, 2h, 2h].

    That is the transposed convolution of stride 2 whose 4×4 kernel is the 3×3 one spread over 2×2 pixels. Computed so it takes
    less than half the multiplications. (The weights lie mirrored to those of a convolution, as a transposed one has them.)
    """

    # Of the 4×4 taps, which 3×3 weights they are the sum of.
    SPREAD = tuple(tuple(float(0 <= row - i <= 1 and 0 <= column - j <= 1) for i in range(3) for j in range(3))
                   for row in range(4) for column in range(4))

    def __init__(self, inputs, outputs, weight_attr):
        super().__init__(inputs, outputs, 3, 2, 1, weight_attr=weight_attr, bias_attr=False)

    def kernels(self):
        """The weights as they are applied: float32 [inputs, outputs, 4, 4]."""
        inputs, outputs = self.weight.shape[:2]
        spread = paddle.matmul(self.weight.reshape([-1, 9]), paddle.to_tensor(self.SPREAD), transpose_y=True)
        return spread.reshape([inputs, outputs, 4, 4])

    def forward(self, x):
        with paddle.amp.auto_cast(enable=False):  # which would sum weights already rounded
            kernels = self.kernels()
        return F.conv2d_transpose(x, kernels, None, 2, 1)


def run(layers, x):
    """The output of the last of these layers for `x`; see above."""
    layers = list(layers)
    while layers:
        fast = next((i for i, layer in enumerate(layers) if not is_fast(layer)), len(layers)) if suits(x) else 0
        if fast:
            x, layers = through(layers[:fast], x), layers[fast:]
        else:
            x, layers = layers[0](x), layers[1:]
    return x


def suits(x):
    """Whether oneDNN computes on this tensor."""
    return (onednn.usable() and not state.twice and x.ndim == 4 and x.dtype == paddle.float32 and x.place.is_cpu_place()
            and 0 not in x.shape)


def is_fast(layer):
    """Whether there is an operation for this layer, as it is set."""
    return type(layer) in FORWARDS and FITS.get(type(layer), lambda _: True)(layer)


def through(layers, x):
    """Pictures float32 [N, C, H, W] through layers that all are fast."""
    for layer in layers:
        for hook in layer._forward_pre_hooks.values():  # spectral normalisation makes the weights here
            hook(layer, (x,))
    weights = [weight for layer in layers for weight in weights_of(layer)]
    if paddle.is_grad_enabled() and not all(tensor.stop_gradient for tensor in (x, *weights)):
        return Segment.apply(x, layers, *weights)
    return forward(layers, x)[0]


def weights_of(layer):
    """What a layer learns: its weight and its bias, as far as it has them."""
    return [weight for weight in (getattr(layer, "weight", None), getattr(layer, "bias", None)) if weight is not None]


class Segment(paddle.autograd.PyLayer):
    """`through` as an operation that Paddle can differentiate."""

    @staticmethod
    def forward(ctx, x, layers, *weights):
        ctx.wanted = not x.stop_gradient
        y, ctx.backwards = forward(layers, x, keep=True)
        return y

    @staticmethod
    def backward(ctx, dy):
        backwards, ctx.backwards = ctx.backwards, None  # what was kept goes as it is used
        gradients = []
        while backwards:
            dy, *some = backwards.pop()(dy, ctx.wanted or len(backwards) > 1)
            gradients = some + gradients
        return (dy, *gradients)


def forward(layers, x, keep=False):
    """y [N, C, H, W] for x [N, C, H, W] and, to `keep`, a function for each step: (dy, wanted) → dx, the weights' gradients.

    A dx that is not `wanted` is None, and so is the gradient of a frozen weight.
    """
    dtype, shape = state.dtype, nhwc(x.shape)
    x, backwards = enter(x.contiguous(), dtype), [lambda dy, wanted, shape=shape: (leave(dy, shape) if wanted else None,)]
    for before, layer, after in zip([None, *layers], layers, [*layers[1:], None]):
        if FORWARDS[type(layer)] is activation is FORWARDS.get(type(before)):
            x = operations.copy(x, x.layout)  # of which the one before needs its output as it is
        if type(layer) is nn.ReLU and type(before) is nn.BatchNorm2D:
            continue  # they were one step
        if type(layer) is nn.BatchNorm2D:
            x, shape, backward = batch_norm(layer, x, shape, with_relu=type(after) is nn.ReLU)
        else:
            x, shape, backward = FORWARDS[type(layer)](layer, x, shape)
        if keep:
            backwards.append(backward)
    backwards.append(lambda dy, _: (enter(dy.contiguous(), dtype),))
    return leave(x, shape), backwards


def nhwc(shape):
    """(N, C, H, W) → (N, H, W, C)."""
    batch, channels, height, width = shape
    return batch, height, width, channels


def convolution(layer, x, shape):
    """nn.Conv2D."""
    sides = [(kernel - 1) // 2 if layer._padding == "SAME" else side
             for kernel, side in zip(layer._kernel_size, layer._updated_padding)]
    top, left = sides
    weights = tuple(layer.weight.shape)
    operation = operations.convolution(shape, weights, layer._stride[0], (top, top, left, left), state.dtype)
    kernels = Kernels(weights, state.dtype)
    applied = kernels.forward(layer.weight)
    y, bias_backward = add_bias(layer, operation.forward(x, applied), operation.small)

    def backward(dy, wanted):
        d_weights = None if layer.weight.stop_gradient else kernels.backward(operation.backward_weights(x, dy))
        return operation.backward_data(dy, applied) if wanted else None, d_weights, *bias_backward(dy)

    return y, operation.small, backward


def transposed_convolution(layer, x, shape):
    """nn.Conv2DTranspose, and ResizeConv2D, which is one with other kernels."""
    weights, stride, sides = tuple(layer.weight.shape), layer._stride[0], layer._updated_padding
    if type(layer) is ResizeConv2D:
        kernels, kernel = SpreadKernels(weights, (4, 4), ResizeConv2D.SPREAD), (4, 4)
    else:
        kernels, kernel = Kernels(weights, state.dtype), weights[2:]
    batch, height, width, inputs = shape
    large = [(few - 1) * stride - 2 * side + k + layer.output_padding for few, side, k in zip((height, width), sides, kernel)]
    (top, left), (bottom, right) = sides, (side - layer.output_padding for side in sides)
    operation = operations.convolution((batch, *large, weights[1]), (inputs, weights[1], *kernel), stride,
                                       (top, bottom, left, right), state.dtype)
    applied = kernels.forward(layer.weight)
    y, bias_backward = add_bias(layer, operation.backward_data(x, applied), operation.large)

    def backward(dy, wanted):
        d_weights = None if layer.weight.stop_gradient else kernels.backward(operation.backward_weights(dy, x))
        return operation.forward(dy, applied) if wanted else None, d_weights, *bias_backward(dy)

    return y, operation.large, backward


def add_bias(layer, y, shape):
    """y with a layer's bias added, if it has one; and dy → the gradients of the biases, a list of one or none."""
    if layer.bias is None:
        return y, lambda dy: []
    bias = Bias(shape, state.dtype)
    return bias.forward(y, layer.bias), lambda dy: [None if layer.bias.stop_gradient else bias.backward(dy)]


def batch_norm(layer, x, shape, with_relu):
    """nn.BatchNorm2D, and an nn.ReLU behind it `with_relu`. In training the running statistics move towards the batch's."""
    operation = BatchNorm(shape, layer._epsilon, not layer.training, with_relu, state.dtype)
    mean, variance = layer._mean, layer._variance
    if layer.training:
        mean, variance = paddle.empty(mean.shape), paddle.empty(variance.shape)
    y, shared = operation.forward(x, layer.weight, layer.bias, mean, variance)
    if layer.training:
        for running, now in ((layer._mean, mean), (layer._variance, variance)):
            running.scale_(layer._momentum).add_(now * (1 - layer._momentum))

    def backward(dy, _):
        dx, d_scale, d_shift = operation.backward(dy, shared)
        return dx, None if layer.weight.stop_gradient else d_scale, None if layer.bias.stop_gradient else d_shift

    return y, shape, backward


def activation(layer, x, shape):
    """nn.ReLU, nn.LeakyReLU, nn.Tanh."""
    kind = TANH if type(layer) is nn.Tanh else RELU
    operation = Activation(kind, getattr(layer, "_negative_slope", 0.0), shape, state.dtype)
    y = operation.forward(x)
    return y, shape, lambda dy, _: (operation.backward(dy, y),)


def doubling(layer, x, shape):
    """nn.Upsample by 2, nearest."""
    operation = Doubling(shape, state.dtype)
    return operation.forward(x), operation.large_shape, lambda dy, _: (operation.backward(dy),)


def max_pooling(layer, x, shape):
    """nn.MaxPool2D(2)."""
    operation = MaxPooling(shape, state.dtype)
    y, which = operation.forward(x)
    return y, operation.small_shape, lambda dy, _: (operation.backward(dy, which),)


def has_plain_geometry(layer):
    """Whether a convolution is of the kind that the operations know: one group, no dilation, zeros around."""
    padding_known = isinstance(layer._padding, int) or layer._padding == "SAME" and layer._stride == [1, 1] and all(
        kernel % 2 for kernel in layer._kernel_size)
    return (layer._groups == 1 and layer._dilation == [1, 1] and layer._padding_mode == "zeros" and padding_known
            and layer._stride[0] == layer._stride[1] and layer._data_format == "NCHW" and isinstance(layer.output_padding, int))


FORWARDS = {nn.Conv2D: convolution, nn.Conv2DTranspose: transposed_convolution, ResizeConv2D: transposed_convolution,
            nn.BatchNorm2D: batch_norm, nn.ReLU: activation, nn.LeakyReLU: activation, nn.Tanh: activation,
            nn.Upsample: doubling, nn.MaxPool2D: max_pooling}
FITS = {
    nn.Conv2D: has_plain_geometry, nn.Conv2DTranspose: has_plain_geometry,
    nn.BatchNorm2D: lambda layer: len(weights_of(layer)) == 2 and not layer._use_global_stats,
    nn.Upsample: lambda layer: layer.scale_factor == 2 and layer.mode == "nearest",
    nn.MaxPool2D: lambda layer: (layer.ksize, layer.stride or 2, layer.padding, layer.ceil_mode) == (2, 2, 0, False),
}
