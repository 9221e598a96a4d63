"""The two players of DCGAN (Radford et al. 2016) and what they are trained on.

    z [N, z_dim] → Generator → pictures [N, 3, size, size] in [-1, 1] → Discriminator → logits [N]

The blocks come first; the networks are lists of them.
"""
import numpy as np
import paddle
import paddle.nn as nn
import paddle.nn.functional as F

from convolution import Conv2D, Conv2DTranspose
from weightInit import bn_initializer, conv_initializer

SIZES = (16, 32, 64, 128, 256)  # picture sizes, px
BN_MOMENTUM = 0.5  # the running statistics keep this share of their old value at each update
WIDEST = 8  # no layer has more than this times `channels`, as in the paper's 64-px network


def conv(inputs, outputs, kernel=4, stride=2, padding=1):
    """A convolution without bias; by default it halves height and width."""
    return Conv2D(inputs, outputs, kernel, stride, padding, conv_initializer)


def deconv(inputs, outputs, kernel=4, stride=2, padding=1):
    """A transposed convolution without bias; by default it doubles height and width."""
    return Conv2DTranspose(inputs, outputs, kernel, stride, padding, conv_initializer)


def bn(channels):
    """Batch normalisation of a 4-D tensor, per channel."""
    # Paddle can only turn layers with a ParamAttr into synchronised ones.
    return nn.BatchNorm2D(channels, momentum=BN_MOMENTUM, weight_attr=paddle.ParamAttr(initializer=bn_initializer))


def fc(inputs, outputs):
    """A fully connected layer with bias."""
    return nn.Linear(inputs, outputs, weight_attr=conv_initializer)


def conv_bn(number, inputs, outputs, **geometry):
    """Convolution, batch normalisation, LeakyReLU(0.2), as (name, layer) pairs for `nn.Sequential`."""
    return [(f"conv{number}", conv(inputs, outputs, **geometry)), (f"bn{number}", bn(outputs)),
            (f"act{number}", nn.LeakyReLU(0.2))]


def deconv_bn(number, inputs, outputs, **geometry):
    """Transposed convolution, batch normalisation, ReLU, as (name, layer) pairs for `nn.Sequential`."""
    return [(f"deconv{number}", deconv(inputs, outputs, **geometry)), (f"bn{number}", bn(outputs)),
            (f"act{number}", nn.ReLU())]


def layer_widths(size, channels):
    """Channels of the layers between the picture and the 4×4 map, the one next to the picture first.

    They double at each halving of the picture, up to 8 × `channels`: 64, 128, 256, 512 for a picture of 64 px.
    Raises ValueError for a size that no network is made for.
    """
    if size not in SIZES:
        raise ValueError(f"there is no network for pictures of {size} px; the sizes are {', '.join(map(str, SIZES))}")
    halvings = SIZES.index(size) + 2
    return [channels * min(2 ** i, WIDEST) for i in range(halvings)]


class Generator(nn.Sequential):
    """Draws pictures: float32 z [N, z_dim] → float32 [N, 3, size, size] in [-1, 1]."""

    def __init__(self, size=64, z_dim=100, channels=64):
        widths = layer_widths(size, channels)[::-1]
        layers = deconv_bn(1, z_dim, widths[0], stride=1, padding=0)  # 1×1 → 4×4
        for i in range(1, len(widths)):
            layers += deconv_bn(i + 1, widths[i - 1], widths[i])
        layers += [(f"deconv{len(widths) + 1}", deconv(widths[-1], 3)), ("tanh", nn.Tanh())]
        super().__init__(*layers)
        self.size, self.z_dim, self.channels = size, z_dim, channels

    def forward(self, z):
        return super().forward(z.reshape([-1, self.z_dim, 1, 1]))


class Discriminator(nn.Sequential):
    """Judges pictures: float32 [N, 3, size, size] in [-1, 1] → float32 logits [N]; above 0 it says "real"."""

    def __init__(self, size=64, channels=64):
        widths = layer_widths(size, channels)
        # The paper leaves batch normalisation out of the first layer: D must see the pictures' own colours.
        layers = [("conv1", conv(3, widths[0])), ("act1", nn.LeakyReLU(0.2))]
        for i in range(1, len(widths)):
            layers += conv_bn(i + 1, widths[i - 1], widths[i])
        layers += [(f"conv{len(widths) + 1}", conv(widths[-1], 1, stride=1, padding=0)),  # 4×4 → 1×1
                   ("logit", nn.Flatten(start_axis=0))]
        super().__init__(*layers)

    def forward(self, pictures):
        return super().forward(pictures).astype("float32")  # what the losses take, also in mixed precision


def discriminator_loss(real_logits, fake_logits):
    """-mean log D(x) - mean log(1 - D(G(z))), a scalar: equation 1 of Goodfellow et al. 2014, which D minimises."""
    real = F.binary_cross_entropy_with_logits(real_logits, paddle.ones_like(real_logits))
    fake = F.binary_cross_entropy_with_logits(fake_logits, paddle.zeros_like(fake_logits))
    return real + fake


def generator_loss(fake_logits):
    """-mean log D(G(z)), a scalar: the non-saturating loss of Goodfellow et al. 2014, section 3, which G minimises."""
    return F.binary_cross_entropy_with_logits(fake_logits, paddle.ones_like(fake_logits))


@paddle.no_grad()
def draw_faces(generator, z, batch_size=100):
    """The faces for z [N, z_dim], as uint8 [N, size, size, 3]; the generator is in evaluation mode meanwhile.

    In that mode a face depends on its own row of z alone, so `batch_size` only limits the memory.
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
