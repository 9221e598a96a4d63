"""A small network that sees what a face is like, for scores that need no download.

It was trained on real faces (pretrained/train_features.py), to tell CelebA's attributes, and whether and how much a face was
damaged. What its last map has seen are the features of a face.
"""
from functools import lru_cache
from pathlib import Path

import numpy as np
import paddle
import paddle.nn as nn
import paddle.nn.functional as F

from dataReader import normalise
from network import bn, conv, fc
from support.schema import Names, checked, parsed
from training.checkpoint import DAMAGED, network_shapes, read_metadata, read_tensors
from training.layers import Sequential, run

# Two networks, alike but for the seed: what judges a generator must not be what taught it.
WEIGHTS = Path(__file__).parent.parent / "pretrained" / "facefeatures.safetensors"  # for scores
AID = WEIGHTS.with_name("vision-aid.safetensors")  # for the discriminator, see network.VisionAidedDiscriminator
SIDE = 64  # px, of the faces that the network sees; others are resized
STAGES = ((32,), (64,), (128, 128), (192, 192))  # widths of the convolutions, and the map is halved between two stages
FEATURES = STAGES[-1][-1]
DAMAGES = ("warp", "blur", "grain", "swap")  # see pretrained/train_features.py


class FaceFeatures(nn.Layer):
    """float32 pictures [N, 3, 64, 64] in [-1, 1] → float32 logits [N, attributes + DAMAGES]."""

    MAPS = ((128, 16), (192, 8))  # channels and side, px, of what `maps` gives

    def __init__(self, attributes):
        super().__init__()
        self.attributes = tuple(attributes)
        layers, inputs = [], 3
        for stage in STAGES:
            for width in stage:
                layers += [conv(inputs, width, 3, 1, 1), bn(width, momentum=0.9), nn.ReLU()]
                inputs = width
            layers += [nn.MaxPool2D(2)]
        self.body = Sequential(*layers[:-1])
        self.head = fc(FEATURES, len(self.attributes) + len(DAMAGES))
        self.register_buffer("mean", paddle.zeros([FEATURES]))  # of training faces' features,
        self.register_buffer("deviation", paddle.ones([FEATURES]))  # so that each feature counts as much

    def maps(self, pictures):
        """What the last two stages see of float32 pictures [N, 3, S, S]: two float32 maps [N, C, side, side], see MAPS."""
        last = max(i for i, layer in enumerate(self.body) if isinstance(layer, nn.MaxPool2D))
        third = run(list(self.body)[:last], at_side(pictures))
        return third, run(list(self.body)[last:], third)

    def seen(self, pictures):
        """The means of the last map of pictures as above, float32 [N, FEATURES]."""
        return self.body(pictures).mean([2, 3])

    def forward(self, pictures):
        return self.head(self.seen(pictures))


@lru_cache(maxsize=2)
def load_features(path=WEIGHTS):
    """The trained network, in evaluation mode, frozen. Raises UserError where the file is missing or of another kind."""
    text = read_metadata(path, hint="git checkout pretrained brings it back").get("attributes", "")
    network = FaceFeatures(checked(parsed(text, path, DAMAGED), Names, path, DAMAGED))
    network.set_state_dict(read_tensors(path, {name[1:]: shape for name, shape in network_shapes("", network).items()}))
    network.eval()
    for weight in network.parameters():
        weight.stop_gradient = True
    return network


@paddle.no_grad()
def face_features(faces, batch_size=100):
    """What the network sees in faces uint8 [N, S, S, 3]: float32 [N, 192], over real faces with mean 0 and deviation 1."""
    network, found = load_features(), np.empty((len(faces), FEATURES), np.float32)
    for start in range(0, len(faces), batch_size):
        pictures = at_side(normalise(faces[start:start + batch_size]))
        found[start:start + batch_size] = ((network.seen(pictures) - network.mean) / network.deviation).numpy()
    return found


def at_side(pictures):
    """Pictures [N, 3, S, S] at 64 px: larger ones averaged over areas, smaller ones interpolated."""
    if pictures.shape[2] == SIDE:
        return pictures
    return F.interpolate(pictures, [SIDE, SIDE], mode="area" if pictures.shape[2] > SIDE else "bilinear")
