"""The two players of DCGAN (Radford et al. 2016) and what they are trained on.

    z [N, z_dim] → Generator → pictures [N, 3, size, size] in [-1, 1] → Discriminator → logits [N]

The blocks come first; the networks are lists of them; the losses are last.
"""
from functools import partial
from math import log2

import numpy as np
import paddle
import paddle.nn as nn
import paddle.nn.functional as F

from training.layers import ResizeConv2D, Sequential, run
from weightInit import bn_initializer, conv_initializer

SIZES = (16, 32, 64, 128, 256)  # picture sizes, px
BN_MOMENTUM = 0.5  # the running statistics keep this share of their old value at each update


def conv(inputs, outputs, kernel=4, stride=2, padding=1, bias=False):
    """A convolution, without bias unless asked; by default it halves height and width."""
    return nn.Conv2D(inputs, outputs, kernel, stride, padding, weight_attr=conv_initializer, bias_attr=None if bias else False)


def deconv(inputs, outputs, kernel=4, stride=2, padding=1, bias=False):
    """A transposed convolution, without bias unless asked; with a stride of 2 it doubles height and width.

    A kernel that falls short of that by one row and column, as 5×5 does, gets them at the lower right.
    """
    return nn.Conv2DTranspose(inputs, outputs, kernel, stride, padding, max(0, stride + 2 * padding - kernel),
                              weight_attr=conv_initializer, bias_attr=None if bias else False)


def bn(channels, momentum=BN_MOMENTUM):
    """Batch normalisation of a 4-D tensor, per channel."""
    # Paddle can only turn layers with a ParamAttr into synchronised ones.
    return nn.BatchNorm2D(channels, momentum=momentum, weight_attr=paddle.ParamAttr(initializer=bn_initializer))


def fc(inputs, outputs):
    """A fully connected layer with bias."""
    return nn.Linear(inputs, outputs, weight_attr=conv_initializer)


def conv_bn(number, inputs, outputs, **geometry):
    """Convolution, batch normalisation, LeakyReLU(0.2), as (name, layer) pairs for `Sequential`."""
    return [(f"conv{number}", conv(inputs, outputs, **geometry)), (f"bn{number}", bn(outputs)),
            (f"act{number}", nn.LeakyReLU(0.2))]


def deconv_bn(number, inputs, outputs, up=deconv, **geometry):
    """A doubling in size (`up`), batch normalisation, ReLU, as (name, layer) pairs for `Sequential`."""
    return [(f"deconv{number}", up(inputs, outputs, **geometry)), (f"bn{number}", bn(outputs)), (f"act{number}", nn.ReLU())]


def resize_conv(inputs, outputs):
    """Doubles height and width by repeating pixels, then convolves: no checkerboards (Odena et al. 2016)."""
    return ResizeConv2D(inputs, outputs, conv_initializer)


# How G doubles the size. The last has a layer more: without it a picture's finest detail is a linear map of one half as large.
UPSAMPLINGS = {"deconv": deconv, "resize": resize_conv, "refine": resize_conv}


def multiples(size):
    """Widths of the layers between the picture and the 4×4 map, as multiples of the first; the one next to the picture first.

    They double at each halving of the picture: 1, 2, 4, 8 for one of 64 px, as in the paper, and so on for larger ones. So a
    network for twice the size and half as many channels has the same layers inside, and can start from trained ones (--from).
    """
    return [2 ** i for i in range(SIZES.index(size) + 2)]


def dcgan_generator(size, inputs, width, up):
    """The layers of G: z [N, inputs] as a 1×1 map → 4×4 → … → the picture, doubled in size by one of UPSAMPLINGS."""
    widths = [width(64 * multiple) for multiple in multiples(size)][::-1]
    double = UPSAMPLINGS[up]
    if up == "refine":
        widths.append(width(32))
    layers = [("start", nn.Unflatten(1, [inputs, 1, 1])), *deconv_bn(1, inputs, widths[0], stride=1, padding=0)]
    for i, (before, after) in enumerate(zip(widths, widths[1:]), 2):
        layers += deconv_bn(i, before, after, double)
    number = len(widths) + 1
    if up == "refine":
        layers.append((f"conv{number}", conv(widths[-1], 3, kernel=3, stride=1, padding=1)))
    else:
        layers.append((f"deconv{number}", double(widths[-1], 3)))
    return [*layers, ("tanh", nn.Tanh())]


def dcgan_discriminator(size, width, outputs):
    """The layers of D: the picture → … → 4×4 → 1×1, halved by each."""
    widths = [width(64 * multiple) for multiple in multiples(size)]
    # The paper leaves batch normalisation out of the first layer: D must see the pictures' own colours.
    layers = [("conv1", conv(3, widths[0])), ("act1", nn.LeakyReLU(0.2))]
    for i, (before, after) in enumerate(zip(widths, widths[1:]), 2):
        layers += conv_bn(i, before, after)
    return [*layers, (f"conv{len(widths) + 1}", conv(widths[-1], outputs, stride=1, padding=0))]


class Generator(Sequential):
    """Draws pictures: float32 z [N, inputs] → float32 [N, 3, size, size] in [-1, 1]. Its layers: above, or in zoo.py."""


class Discriminator(Sequential):
    """Judges pictures: float32 [N, 3, size, size] in [-1, 1] → float32 logits [N]; above 0 it says "real".

    Its layers: above, or in zoo.py.
    """

    def forward(self, pictures):
        return to_logits(super().forward(pictures))


def to_logits(outputs):
    """What D's last layer gives, one number a picture or two (fake, real), as float32 logits [N].

    The softmax of two numbers depends on their difference alone, of which it is the sigmoid.
    """
    outputs = outputs.reshape([len(outputs), -1]).astype("float32")  # what the losses take, also in mixed precision
    return outputs[:, 0] if outputs.shape[1] == 1 else outputs[:, 1] - outputs[:, 0]


class ConditionalDiscriminator(nn.Layer):
    """Judges whether pictures are real and what their labels say: a projection discriminator (Miyato & Koyama 2018).

    Takes pictures as `Discriminator` does, and labels, float32 [N, K] of -1 and 1. To the logit of a discriminator it adds the
    inner product of the features that its last layer sees (a map's summed over the positions) with a learned sum of the labels.
    """

    def __init__(self, discriminator, labels):
        super().__init__()
        self.discriminator = discriminator
        weights = list(discriminator)[-1].weight
        self.projection = nn.Linear(labels, weights.shape[1 if weights.ndim == 4 else 0], conv_initializer, bias_attr=False)

    def forward(self, pictures, labels):
        *body, last = self.discriminator
        features = run(body, pictures)
        summed = features.reshape([*features.shape[:2], -1]).sum(2)
        return to_logits(run([last], features)) + (self.projection(labels) * summed).sum(1).astype("float32")


class VisionAidedDiscriminator(nn.Layer):
    """A discriminator of pictures, and smaller ones of what a network that knows faces sees in them (Kumari et al. 2022).

        pictures → maps → discriminators → logits [N] of each

    maps            a function: pictures → maps [N, C, h, h]; its network is neither trained nor saved with this one
    discriminators  the first of pictures, the others of one map each

    Takes what a `Discriminator` takes, or a `ConditionalDiscriminator`. Gives the logits of pictures PICTURES_COUNT times, so
    that they weigh more in the losses, and those of each map: float32 [N (PICTURES_COUNT + maps)].
    What matters in a face need not be learned anew in each run, which takes longer than to learn to draw it.
    """

    PICTURES_COUNT = 2  # with 1, a fine grain stays in the faces, which the maps hardly show

    def __init__(self, maps, *discriminators):
        super().__init__()
        self.maps, self.discriminators = maps, nn.LayerList(discriminators)

    def forward(self, pictures, *labels):
        of_pictures, *of_maps = self.discriminators
        judged = [discriminator(seen, *labels) for discriminator, seen in zip(of_maps, self.maps(pictures))]
        return paddle.concat([of_pictures(pictures, *labels)] * self.PICTURES_COUNT + judged)


def map_discriminator(inputs, side, width):
    """The layers of a discriminator of maps [N, inputs, side, side]: → … → 4×4 → 1×1, halved by each of this width."""
    widths = [inputs] + [width] * round(log2(side / 4))
    layers = []
    for i, (before, after) in enumerate(zip(widths, widths[1:]), 1):
        layers += conv_bn(i, before, after)
    return [*layers, (f"conv{len(widths)}", conv(widths[-1], 1, stride=1, padding=0))]


def bce_d_loss(real_logits, fake_logits, smoothing=0.0):
    """-mean log D(x) - mean log(1 - D(G(z))), a scalar: equation 1 of Goodfellow et al. 2014, which D minimises.

    With `smoothing` s the reals are to be judged 1 - s, not 1 (one-sided label smoothing, Salimans et al. 2016).
    """
    real = F.binary_cross_entropy_with_logits(real_logits, paddle.full_like(real_logits, 1 - smoothing))
    fake = F.binary_cross_entropy_with_logits(fake_logits, paddle.zeros_like(fake_logits))
    return real + fake


def bce_g_loss(fake_logits):
    """-mean log D(G(z)), a scalar: the non-saturating loss of Goodfellow et al. 2014, section 3, which G minimises."""
    return F.binary_cross_entropy_with_logits(fake_logits, paddle.ones_like(fake_logits))


def minimax_g_loss(fake_logits):
    """mean log(1 - D(G(z))), a scalar: equation 1 of Goodfellow et al. 2014. It saturates while D is sure of the fakes."""
    return -F.softplus(fake_logits).mean()


def hinge_d_loss(real_logits, fake_logits):
    """mean max(0, 1 - D(x)) + mean max(0, 1 + D(G(z))), a scalar: Lim & Ye 2017 (Geometric GAN)."""
    return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()


def hinge_g_loss(fake_logits):
    """-mean D(G(z)), a scalar."""
    return -fake_logits.mean()


def lsgan_d_loss(real_logits, fake_logits):
    """Least squares from 1 for reals and -1 for fakes, a scalar: Mao et al. 2017, so that 0 is undecided as in the others."""
    return ((real_logits - 1).square().mean() + (fake_logits + 1).square().mean()) / 2


def lsgan_g_loss(fake_logits):
    """Least squares of the fakes from 1, a scalar."""
    return (fake_logits - 1).square().mean() / 2


# --loss → (D's loss, G's loss): functions like bce_d_loss and bce_g_loss, of float32 logits, one of each face or several (see
# VisionAidedDiscriminator), to a scalar to minimise. A new one needs no other change, but for SMOOTHED and `certainty` where its
# targets are not ±1, and docs/make_options.py. With softmax D has two outputs, fake and real; the cross-entropy of their softmax
# is bce of `to_logits`.
LOSSES = {"bce": (bce_d_loss, bce_g_loss), "softmax": (bce_d_loss, bce_g_loss), "minimax": (bce_d_loss, minimax_g_loss),
          "hinge": (hinge_d_loss, hinge_g_loss), "lsgan": (lsgan_d_loss, lsgan_g_loss)}
SMOOTHED = ("bce", "softmax", "minimax")  # losses whose reals have a target probability; D's takes smoothing=


def certainty(name, smoothing=0.0):
    """D's mean probabilities of "real" on reals and on fakes beyond which it makes hardly an error, with a loss of that name."""
    return (0.95 * (1 - smoothing), 0.05) if name in SMOOTHED else (0.7, 0.3)  # the others' targets are ±1, sigmoid: .73, .27


def choose_losses(name, smoothing=0.0):
    """D's and G's loss of that name, D's with smoothed labels where that is asked for (see SMOOTHED)."""
    d_loss, g_loss = LOSSES[name]
    return partial(d_loss, smoothing=smoothing) if smoothing else d_loss, g_loss


@paddle.no_grad()
def draw_faces(generator, z, batch_size=100):
    """The faces for z, float32 [N, z_dim + labels] as from training.randomness.face_inputs: uint8 [N, size, size, 3].

    The generator is in evaluation mode meanwhile: a face depends on its own row of z alone, so `batch_size` only limits the
    memory.
    """
    was_training = generator.training
    generator.eval()
    faces = np.empty((len(z), generator.size, generator.size, 3), np.uint8)
    for start in range(0, len(z), batch_size):
        pictures = generator(paddle.to_tensor(z[start:start + batch_size]))
        pictures = ((pictures + 1) * 127.5).round().clip(0, 255).astype("uint8")
        faces[start:start + batch_size] = pictures.transpose([0, 2, 3, 1]).numpy()
    if was_training:
        generator.train()
    return faces
