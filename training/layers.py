"""The layers of the networks: Paddle's own, computed by oneDNN where that is faster, which is on x86 CPUs under Linux.

A network is a list of layers; `run` takes pictures through it. On a GPU and on another processor that calls one layer after
the other. On an x86 CPU it computes the same from the same weights with the operations of operations.py and convolution.py;
between the layers pictures then stay in the order of that library, [N, H, W, C].

A layer that oneDNN can compute is here a function (layer, x, shape) → y, its shape, backward. x and y are Arrays, shapes
(N, H, W, C), and backward(dy, wanted) gives dx, if it is `wanted`, and the gradient of each of the layer's weights, or None for a
frozen one.
"""
import threading
from contextlib import contextmanager

import paddle
import paddle.nn as nn
import paddle.nn.functional as F

from training import onednn
from training.convolution import Kernels, SpreadKernels, make_convolution
from training.onednn import BFLOAT16, FLOAT32, RELU, TANH, copy
from training.operations import Activation, BatchNorm, Bias, Doubling, MaxPooling, enter, leave


class Settings(threading.local):
    """What `computing_in` sets, for this thread alone."""

    dtype = FLOAT32


settings = Settings()


@contextmanager
def computing_in(precision):
    """Inside the block pictures between layers that oneDNN computes are "float32" or "bfloat16"; weights stay float32."""
    before, settings.dtype = settings.dtype, {"float32": FLOAT32, "bfloat16": BFLOAT16}[precision]
    try:
        yield
    finally:
        settings.dtype = before


class Sequential(nn.Sequential):
    """A list of layers through which `run` takes its input."""

    def forward(self, x):
        return run(list(self), x)


class ResizeConv2D(nn.Conv2DTranspose):
    """Repeats each pixel 2×2 times, then convolves with 3×3 weights: float32 [N, inputs, h, h] → [N, outputs, 2h, 2h].

    That is the transposed convolution of stride 2 whose 4×4 kernel is the 3×3 one spread over 2×2 pixels. Computed so it takes
    less than half the multiplications. (The weights lie mirrored to those of a convolution, as a transposed one has them.)
    """

    # A row for each of the 4×4 numbers of the kernel: the share that each of the 3×3 weights has in it.
    SPREAD = tuple(tuple(float(0 <= row - i <= 1 and 0 <= column - j <= 1) for i in range(3) for j in range(3))
                   for row in range(4) for column in range(4))

    def __init__(self, inputs, outputs, weight_attr):
        super().__init__(inputs, outputs, 3, 2, 1, weight_attr=weight_attr, bias_attr=False)
        self.register_buffer("spread", paddle.to_tensor(self.SPREAD), persistable=False)

    def kernels(self):
        """The weights as they are applied: float32 [inputs, outputs, 4, 4]."""
        inputs, outputs = self.weight.shape[:2]
        return paddle.matmul(self.weight.reshape([-1, 9]), self.spread, transpose_y=True).reshape([inputs, outputs, 4, 4])

    def forward(self, x):
        with paddle.amp.auto_cast(enable=False):  # which would sum weights already rounded
            kernels = self.kernels()
        return F.conv2d_transpose(x, kernels, None, 2, 1)


def run(layers, x):
    """Takes x through a list of layers, as calling one after the other does.

    x [N, C, H, W], or whatever the first layer takes. Through layers that oneDNN computes, one backward pass can be taken.
    Raises ValueError where the number of channels is not the layer's.
    """
    while layers:
        fast = next((i for i, layer in enumerate(layers) if not is_fast(layer)), len(layers)) if suits(x) else 0
        if fast:
            x, layers = run_fast(layers[:fast], x), layers[fast:]
        else:
            x, layers = layers[0](x), layers[1:]
    return x


def suits(x):
    """Whether oneDNN computes on this tensor: float32 [N, C, H, W] on a CPU, in eager mode."""
    return (paddle.in_dynamic_mode() and onednn.usable() and x.ndim == 4 and x.dtype == paddle.float32
            and 0 not in x.shape and x.place.is_cpu_place() and paddle.get_device() == "cpu")


def is_fast(layer):
    """Whether there is an operation for this layer, as it is set."""
    return (type(layer) in STEPS and STEPS[type(layer)][1](layer) and not layer._forward_pre_hooks
            and not layer._forward_post_hooks)


def run_fast(layers, x):
    """Pictures float32 [N, C, H, W] through layers that all are fast."""
    weights = [weight for layer in layers for weight in weights_of(layer)]
    if paddle.is_grad_enabled() and not all(tensor.stop_gradient for tensor in (x, *weights)):
        return FastLayers.apply(x, layers, *weights)
    return steps(layers, x)[0]


def weights_of(layer):
    """What a layer learns: its weight and its bias, as far as it has them."""
    return [weight for weight in (getattr(layer, "weight", None), getattr(layer, "bias", None)) if weight is not None]


class FastLayers(paddle.autograd.PyLayer):
    """`run_fast` as an operation that Paddle can differentiate, once."""

    @staticmethod
    def forward(ctx, x, layers, *weights):
        ctx.x_wanted = not x.stop_gradient
        y, ctx.backwards = steps(layers, x, keep=True)
        return y

    @staticmethod
    def backward(ctx, dy):
        if paddle.is_grad_enabled():  # with create_graph=True
            raise RuntimeError("these gradients cannot be differentiated again; call the layers one by one, without `run`")
        backwards, ctx.backwards = ctx.backwards, None  # what was kept is freed as it is used
        gradients = []
        while backwards:
            dy, *some = backwards.pop()(dy, ctx.x_wanted or len(backwards) > 1)
            gradients = some + gradients
        return (dy, *gradients)


def steps(layers, x, keep=False):
    """y [N, C, H, W] for x [N, C, H, W], both float32 tensors, and the backward of each step, if they are to be kept."""
    dtype, (batch, channels, height, width) = settings.dtype, x.shape
    first = shape = (batch, height, width, channels)
    x = enter(x.contiguous(), dtype)
    backwards = [lambda dy, wanted: (leave(dy, first) if wanted else None,)]
    for before, layer, after in zip([None, *map(type, layers)], layers, [*map(type, layers[1:]), None]):
        if type(layer) is nn.ReLU and before is nn.BatchNorm2D:
            continue  # batch_norm has done it
        if type(layer) in ACTIVATIONS and before in ACTIVATIONS:
            x = copy(x, x.layout)  # an activation overwrites its input, which the one before needs
        step = STEPS[type(layer)][0]
        x, shape, backward = step(layer, x, shape, after is nn.ReLU) if step is batch_norm else step(layer, x, shape)
        if keep:
            backwards.append(backward)
    backwards.append(lambda dy, _: (enter(dy.contiguous(), dtype),))
    return leave(x, shape), backwards


def conv2d(layer, x, shape):
    """nn.Conv2D."""
    check_channels(layer, shape, layer._in_channels)
    size, learns = tuple(layer.weight.shape), not layer.weight.stop_gradient
    top, left = [(k - 1) // 2 for k in size[2:]] if layer._padding == "SAME" else layer._updated_padding
    operation = make_convolution(shape, size, layer._stride[0], (top, top, left, left), settings.dtype)
    kernels = Kernels(size, settings.dtype)
    applied = kernels.forward(layer.weight)
    y, bias_backward = add_bias(layer, operation.forward(x, applied), operation.small)

    def backward(dy, wanted):
        d_weight = kernels.backward(operation.backward_weights(x, dy)) if learns else None
        return operation.backward_data(dy, applied) if wanted else None, d_weight, *bias_backward(dy)

    return y, operation.small, backward


def conv2d_transpose(layer, x, shape):
    """nn.Conv2DTranspose, and ResizeConv2D, which is one with other kernels."""
    check_channels(layer, shape, layer._in_channels)
    size, learns = tuple(layer.weight.shape), not layer.weight.stop_gradient
    inputs, outputs, *kernel = size
    kernels = Kernels(size, settings.dtype)
    if type(layer) is ResizeConv2D:
        kernel = [4, 4]
        kernels = SpreadKernels(size, (4, 4), ResizeConv2D.SPREAD)
    stride, added, (top, left) = layer._stride[0], layer.output_padding, layer._updated_padding
    large = [(few - 1) * stride - 2 * side + k + added for few, side, k in zip(shape[1:3], (top, left), kernel)]
    operation = make_convolution((shape[0], *large, outputs), (inputs, outputs, *kernel), stride,
                                 (top, top - added, left, left - added), settings.dtype)
    applied = kernels.forward(layer.weight)
    y, bias_backward = add_bias(layer, operation.backward_data(x, applied), operation.large)

    def backward(dy, wanted):
        d_weight = kernels.backward(operation.backward_weights(dy, x)) if learns else None
        return operation.forward(dy, applied) if wanted else None, d_weight, *bias_backward(dy)

    return y, operation.large, backward


def check_channels(layer, shape, wanted):
    """Raises ValueError where pictures of this shape do not have as many channels as the layer takes."""
    if shape[3] != wanted:
        raise ValueError(f"{type(layer).__name__} takes {wanted} channels, but was given {shape[3]}")


def add_bias(layer, y, shape):
    """y with a layer's bias added, if it has one; and dy → the gradients of the biases, a list of one or none."""
    if layer.bias is None:
        return y, lambda dy: []
    bias, learns = Bias(shape, settings.dtype), not layer.bias.stop_gradient
    return bias.forward(y, layer.bias), lambda dy: [bias.backward(dy) if learns else None]


def batch_norm(layer, x, shape, with_relu):
    """nn.BatchNorm2D, and an nn.ReLU behind it `with_relu`. In training the running statistics move towards the batch's."""
    check_channels(layer, shape, layer._num_features)
    operation = BatchNorm(shape, float(layer._epsilon), not layer.training, with_relu, settings.dtype)
    scale_learns, shift_learns = not layer.weight.stop_gradient, not layer.bias.stop_gradient
    mean, variance = layer._mean.clone(), layer._variance.clone()
    y, shared = operation.forward(x, layer.weight, layer.bias, mean, variance)
    if layer.training:  # they are the batch's now
        for running, now in ((layer._mean, mean), (layer._variance, variance)):
            running.scale_(layer._momentum).add_(now * (1 - layer._momentum))

    def backward(dy, _):
        dx, d_scale, d_shift = operation.backward(dy, shared)
        return dx, d_scale if scale_learns else None, d_shift if shift_learns else None

    return y, shape, backward


def activation(layer, x, shape):
    """nn.ReLU, nn.LeakyReLU, nn.Tanh."""
    kind = TANH if type(layer) is nn.Tanh else RELU
    operation = Activation(kind, float(getattr(layer, "_negative_slope", 0)), shape, settings.dtype)
    y = operation.forward(x)
    return y, shape, lambda dy, _: (operation.backward(dy, y),)


def upsample(layer, x, shape):
    """nn.Upsample by 2, nearest."""
    operation = Doubling(shape, settings.dtype)
    return operation.forward(x), operation.large_shape, lambda dy, _: (operation.backward(dy),)


def max_pool(layer, x, shape):
    """nn.MaxPool2D(2)."""
    operation = MaxPooling(shape, settings.dtype)
    y, which = operation.forward(x)
    return y, operation.small_shape, lambda dy, _: (operation.backward(dy, which),)


def is_plain(layer):
    """Whether a convolution is of the kind that `conv2d` and `conv2d_transpose` know: one group, no dilation, zeros around."""
    same = type(layer) is nn.Conv2D and layer._padding == "SAME" and layer._stride == [1, 1] and all(
        kernel % 2 for kernel in layer._kernel_size)
    return (layer._groups == 1 and layer._dilation == [1, 1] and layer._padding_mode == "zeros" and layer._data_format == "NCHW"
            and layer._stride[0] == layer._stride[1] and isinstance(layer.output_padding, int)
            and (same or isinstance(layer._padding, int)))


# Layer → the function that computes it, and whether it can do so for a layer as it is set.
STEPS = {
    nn.Conv2D: (conv2d, is_plain),
    nn.Conv2DTranspose: (conv2d_transpose, is_plain),
    ResizeConv2D: (conv2d_transpose, lambda layer: True),
    nn.BatchNorm2D: (batch_norm, lambda layer: len(weights_of(layer)) == 2 and not layer._use_global_stats
                     and layer._data_format == "NCHW"),
    nn.ReLU: (activation, lambda layer: True),
    nn.LeakyReLU: (activation, lambda layer: layer._negative_slope >= 0),
    nn.Tanh: (activation, lambda layer: True),
    nn.Upsample: (upsample, lambda layer: layer.scale_factor == 2 and layer.mode == "nearest"
                  and layer.data_format in (None, "NCHW")),
    nn.MaxPool2D: (max_pool, lambda layer: (layer.ksize, layer.stride or 2, layer.padding, layer.ceil_mode, layer.return_mask,
                                            layer.data_format) == (2, 2, 0, False, False, "NCHW")),
}
ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.Tanh)
