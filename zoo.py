"""Published face networks, by name (train.py --arch), made of the blocks of network.py.

Each follows its source in layers, their order, kernels, biases, and widths, which are for --channels 64 and scale with it; the
initial weights are N(0, 0.02) in all of them. A network is a list of layers, or of (name, layer) pairs. A generator takes float32
[N, inputs], z and behind it the labels of a conditional run, to pictures. A discriminator takes pictures to [N, outputs];
outputs is 1, or 2 for --loss softmax.
"""
from support.cli import UserError

from collections.abc import Callable
from typing import NamedTuple

import paddle
import paddle.nn as nn

import network
from network import (
    SIZES,
    ConditionalDiscriminator,
    Discriminator,
    Generator,
    VisionAidedDiscriminator,
    bn,
    conv,
    deconv,
    fc,
    map_discriminator,
)
from weightInit import bn_initializer


def deconv5(inputs, outputs):
    """A 5×5 transposed convolution that doubles the size."""
    return deconv(inputs, outputs, kernel=5, stride=2, padding=2, bias=True)


def conv5(inputs, outputs, stride=2, padding=2):
    """A 5×5 convolution that halves the size, or with a stride of 1 keeps it."""
    return conv(inputs, outputs, kernel=5, stride=stride, padding=padding, bias=True)


def repeat_pixels():
    """Doubles the size by repeating pixels."""
    return nn.Upsample(scale_factor=2, mode="nearest")


def leaky():
    """LeakyReLU with the slope 0.2."""
    return nn.LeakyReLU(0.2)


def fakeface128_generator(size, inputs, width):
    """1 → 4 → 8 → 16 → 32 px, a 3×3 layer, → 64 → 128 px."""
    widths = [inputs, *map(width, (2048, 1024, 1024, 768, 512, 512))]
    geometries = [(4, 1, 0), (4, 2, 1), (4, 2, 1), (4, 2, 1), (3, 1, 1), (4, 2, 1)]  # kernel, stride, padding
    layers = [nn.Unflatten(1, [inputs, 1, 1])]
    for before, after, geometry in zip(widths, widths[1:], geometries):
        layers += [deconv(before, after, *geometry), bn(after, momentum=0.5), nn.ReLU()]
    return [*layers, deconv(widths[-1], 3), nn.Tanh()]


def fakeface128_discriminator(size, width, outputs):
    """128 → 2 px in six halvings, then dense. The odd 385 is the source's."""
    widths = list(map(width, (128, 256, 385, 768, 1024, 512)))
    layers = [conv(3, widths[0]), leaky()]
    for before, after in zip(widths, widths[1:]):
        layers += [conv(before, after), bn(after, momentum=0.5), leaky()]
    return [*layers, nn.Flatten(), fc(widths[-1] * 2 * 2, outputs)]


def dcgan5x5_generator(size, inputs, width):
    """A sixteenth of the size, then four doublings."""
    start, widths = size // 16, list(map(width, (512, 256, 128, 64)))
    layers = [fc(inputs, widths[0] * start ** 2), nn.Unflatten(1, [widths[0], start, start]), bn(widths[0]), nn.ReLU()]
    for before, after in zip(widths, widths[1:]):
        layers += [deconv5(before, after), bn(after), nn.ReLU()]
    return [*layers, deconv5(widths[-1], 3), nn.Tanh()]


def dcgan5x5_discriminator(size, width, outputs):
    """Four halvings, then dense."""
    widths = list(map(width, (64, 128, 256, 512)))
    layers = [conv5(3, widths[0]), leaky()]
    for before, after in zip(widths, widths[1:]):
        layers += [conv5(before, after), bn(after), leaky()]
    return [*layers, nn.Flatten(), fc(widths[-1] * (size // 16) ** 2, outputs)]


def tanh_upsample64_generator(size, inputs, width):
    """Dense to 16 px, then two doublings. Nearly all of its weights are in the second dense layer."""
    hidden, first, second = map(width, (1024, 128, 64))
    flat = first * 16 * 16
    bn_flat = nn.BatchNorm1D(flat, weight_attr=paddle.ParamAttr(initializer=bn_initializer))
    return [fc(inputs, hidden), nn.Tanh(), fc(hidden, flat), bn_flat, nn.Tanh(), nn.Unflatten(1, [first, 16, 16]),
            repeat_pixels(), conv5(first, second, stride=1), nn.Tanh(),
            repeat_pixels(), conv5(second, 3, stride=1), nn.Tanh()]


def tanh_upsample64_discriminator(size, width, outputs):
    """64 → 32 → 28 → 14 px, then dense. The source judges reals and fakes in one batch; here each has its own, which without
    batch norm is the same."""
    first, second, hidden = map(width, (64, 128, 1024))
    return [conv5(3, first, stride=1), nn.Tanh(), nn.MaxPool2D(2),
            conv5(first, second, stride=1, padding=0), nn.Tanh(), nn.MaxPool2D(2),
            nn.Flatten(), fc(second * 14 * 14, hidden), nn.Tanh(), fc(hidden, outputs)]


def upsample48_generator(size, inputs, width):
    """Dense to 6 px, then three doublings."""
    widths = list(map(width, (512, 256, 128, 64)))
    layers = [fc(inputs, widths[0] * 6 * 6), nn.ReLU(), nn.Unflatten(1, [widths[0], 6, 6])]
    for before, after in zip(widths, widths[1:]):
        layers += [repeat_pixels(), conv5(before, after, stride=1), bn(after, momentum=0.8), nn.ReLU()]
    return [*layers, conv5(widths[-1], 3, stride=1), nn.Tanh()]


def upsample48_discriminator(size, width, outputs):
    """48 → 24 → 12 px, made 13 by zeros below and to the right, → 7 → 7 px, then dense."""
    a, b, c, d = map(width, (64, 128, 256, 512))
    return [conv5(3, a), leaky(), nn.Dropout(0.4),
            conv5(a, b), nn.ZeroPad2D([0, 1, 0, 1]), bn(b, momentum=0.8), leaky(), nn.Dropout(0.4),
            conv5(b, c), bn(c, momentum=0.8), leaky(), nn.Dropout(0.4),
            conv5(c, d, stride=1), bn(d, momentum=0.8), leaky(), nn.Dropout(0.4),
            nn.Flatten(), fc(d * 7 * 7, outputs)]


def dcgan28_generator(size, inputs, width):
    """Dense to 4 px, → 7 → 14 → 28 px."""
    a, b, c = map(width, (1024, 512, 256))
    return [fc(inputs, a * 4 * 4), nn.Unflatten(1, [a, 4, 4]), bn(a), leaky(), nn.Dropout(0.5),
            deconv(a, b, stride=1, padding=0, bias=True), bn(b), leaky(), nn.Dropout(0.5),
            deconv5(b, c), bn(c), leaky(), nn.Dropout(0.5),
            deconv5(c, 3), nn.Tanh()]


def dcgan28_discriminator(size, width, outputs):
    """28 → 14 → 7 → 4 px, then dense."""
    a, b, c = map(width, (64, 128, 256))
    return [conv5(3, a), leaky(), nn.Dropout(0.5),
            conv5(a, b), bn(b), leaky(), nn.Dropout(0.5),
            conv5(b, c), bn(c), leaky(), nn.Dropout(0.5),
            nn.Flatten(), fc(c * 4 * 4, outputs)]


class Arch(NamedTuple):
    """A pair of networks with its source's settings."""

    generator: Callable  # (size, inputs, width, up= where it has a choice of it) → layers; `width` scales a published width
    discriminator: Callable  # (size, width, outputs) → layers
    sizes: tuple  # of pictures, px, that it is made for, the source's first
    defaults: dict  # of options of train.py, in place of the usual ones
    has_up: bool = False  # whether G has a choice of network.UPSAMPLINGS
    rates: tuple = (2e-4, 2e-4)  # learning rates of D and G


UNIFORM = {"noise": "uniform", "g_steps": 1}
# To add a pair: write two functions and a line here, as dcgan28 has them. Any layer of Paddle may be used; those that
# training/layers.py knows are faster on a CPU. The last layer of D needs a `weight` for --conditional.
ZOO = {
    "dcgan": Arch(network.dcgan_generator, network.dcgan_discriminator, (64, *SIZES), {"vision_aided": True}, True, (2e-4, 1e-4)),
    "fakeface128": Arch(fakeface128_generator, fakeface128_discriminator, (128,),
                        {"noise": "uniform01", "loss": "softmax"}),
    "dcgan5x5": Arch(dcgan5x5_generator, dcgan5x5_discriminator, (48, *range(16, 257, 16)), UNIFORM),
    "tanh-upsample64": Arch(tanh_upsample64_generator, tanh_upsample64_discriminator, (64,), UNIFORM),
    "upsample48": Arch(upsample48_generator, upsample48_discriminator, (48,), {"g_steps": 1}),
    "dcgan28": Arch(dcgan28_generator, dcgan28_discriminator, (28,), {**UNIFORM, "label_smoothing": 0.1}),
}


def check_size(arch, size):
    """Raises UserError where an architecture is not made for pictures of `size` px."""
    usual = ZOO[arch].sizes[0]
    if size not in ZOO[arch].sizes:
        sizes = ", ".join(map(str, sorted(set(ZOO[arch].sizes))))
        raise UserError(f"--arch {arch}: draws pictures of {sizes} px, but the packed faces have {size}; pack them "
                        f"again: add --size {usual} --out imgs{usual} to what you typed behind pretreat.py, then train.py --data "
                        f"imgs{usual}")


MAX_CHANNELS, MAX_Z_DIM = 4096, 10_000


class Plan(NamedTuple):
    """All that is needed to build a generator, and together with a loss its discriminator."""

    arch: str = "dcgan"
    size: int = 64  # height and width of its pictures, px
    z_dim: int = 100  # how many random numbers a face is drawn from
    noise: str = "normal"  # their distribution, a name in training.randomness.NOISES
    labels: dict = {}  # of a conditional generator: attribute → its labels, -1 or 1, in a sample of the training faces
    channels: int = 64
    up: str = "deconv"  # a name in network.UPSAMPLINGS; of no meaning for networks that have no choice of it

    def width(self, published):
        """A layer's width: `published` is that with 64 channels."""
        return max(1, round(published * self.channels / 64))

    @property
    def inputs(self):
        """How many numbers a face is drawn from: those of z, and the labels of a conditional generator."""
        return self.z_dim + len(self.labels)

    def exists(self):
        """Whether there is a network of this size and with this upsampling."""
        arch = ZOO[self.arch]
        return self.size in arch.sizes and (self.up != "" or not arch.has_up)


def make_plan(recipe, size, labels):
    """The Plan of a run's generator: a Recipe, its pictures' size in px, and the labels of a conditional one, else {}."""
    return Plan(recipe.arch, size, recipe.z_dim, recipe.noise, labels, recipe.channels, recipe.up)


def build_generator(plan):
    """An untrained generator; its `plan` stays with it."""
    arch = ZOO[plan.arch]
    chosen = {"up": plan.up} if arch.has_up else {}
    generator = Generator(*arch.generator(plan.size, plan.inputs, plan.width, **chosen))
    generator.size, generator.plan = plan.size, plan
    return generator


def build_discriminator(plan, loss, aid=None):
    """An untrained discriminator for the generator of this plan and a loss; one that takes labels where the plan has any.

    With an `aid`, a FaceFeatures, it is a VisionAidedDiscriminator. Half of the width saves the time that the aid takes.
    """
    def build(layers):
        discriminator = Discriminator(*layers)
        return ConditionalDiscriminator(discriminator, len(plan.labels)) if plan.labels else discriminator

    arch, outputs = ZOO[plan.arch], 2 if loss == "softmax" else 1
    if not aid:
        return build(arch.discriminator(plan.size, plan.width, outputs))
    of_pictures = build(arch.discriminator(plan.size, lambda published: plan.width(published / 2), outputs))
    of_maps = [build(map_discriminator(*shape, plan.width(2 * plan.size))) for shape in aid.MAPS]
    return VisionAidedDiscriminator(aid.maps, of_pictures, *of_maps)
