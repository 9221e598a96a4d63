"""FID and KID: distances of generated faces from real ones, in the features of an Inception network.

Both use the network, the weights and the formulas of pytorch-fid (https://github.com/mseitzer/pytorch-fid), whose numbers are
those of the papers: Heusel et al. 2017 (FID) and Bińkowski et al. 2018 (KID). The weights are a download of 96 MB.
benchmarks/inception_proof.py shows that the numbers are the same.
"""
from support.cli import UserError

import hashlib
import io
import pickle
import warnings
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

import numpy as np
import paddle
import paddle.nn as nn
import paddle.nn.functional as F
from scipy import linalg
from tqdm import tqdm

from intake.download import fetch
from scoring.torchfile import read_torch
from training.checkpoint import network_shapes, set_network
from training.layers import run
from training.randomness import draws

URL = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
BY_HAND = f"fetch {URL} with a browser and name the file with --inception"
SIDE = 299  # px, the size of Inception's input
FEATURES = 2048
OFFSET = 1e-6  # added to the diagonals of covariances whose product has no root
KID_SUBSETS, KID_FACES = 100, 1000  # number of subsets, and of faces in each


class ConvBN(nn.Layer):
    """Convolution without bias, batch normalisation, ReLU; the default padding keeps the size at stride 1."""

    def __init__(self, inputs, outputs, kernel, stride=1, padding="SAME"):
        super().__init__()
        self.conv = nn.Conv2D(inputs, outputs, kernel, stride, padding, bias_attr=False)
        self.bn = nn.BatchNorm2D(outputs, epsilon=0.001)
        self.act = nn.ReLU()

    def forward(self, x):
        return run([self.conv, self.bn, self.act], x)


class Block(nn.Layer):
    """Branches side by side, whose outputs are concatenated; the layers have the names that they have in the weights' file.

    A branch is a list of layers: (channels, kernel) and, where it halves the map, stride and padding. A list of two such
    layers is a fork, which ends a branch. The input of the branch called branch_pool is the block's input after `pool`.
    """

    def __init__(self, inputs, pool, **branches):
        super().__init__()
        self.pool, self.branches = pool, {name: [] for name in branches}
        for branch, layers in branches.items():
            width = inputs
            for number, layer in enumerate(layers, start=1):
                fork = layer if isinstance(layer, list) else [layer]
                name = branch if len(layers) == 1 else f"{branch}_{number}"
                names = [name] if len(fork) == 1 else [f"{name}a", f"{name}b"]
                self.branches[branch].append([self.add_sublayer(name, ConvBN(width, *geometry))
                                              for name, geometry in zip(names, fork)])
                width = fork[0][0]

    def forward(self, x):
        outputs = []
        for branch, layers in self.branches.items():
            ends = [self.pool(x) if branch == "branch_pool" else x]
            for fork in layers:
                ends = [layer(ends[0]) for layer in fork]
            outputs += ends
        return paddle.concat(outputs, axis=1)


HALVED = (2, 0)  # stride and padding
ROW, COLUMN = (1, 7), (7, 1)
halve = partial(F.max_pool2d, kernel_size=3, stride=2)
average = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, exclusive=True)  # without the padding, as in TensorFlow
maximum = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)


def block_a(inputs, pooled):
    """Mixed_5: 35×35 maps; 224 channels and those of the pooled branch."""
    return Block(inputs, average, branch1x1=[(64, 1)], branch5x5=[(48, 1), (64, 5)],
                 branch3x3dbl=[(64, 1), (96, 3), (96, 3)], branch_pool=[(pooled, 1)])


def block_b(inputs):
    """Mixed_6a: 35×35 → 17×17."""
    return Block(inputs, halve, branch3x3=[(384, 3, *HALVED)], branch3x3dbl=[(64, 1), (96, 3), (96, 3, *HALVED)], branch_pool=[])


def block_c(inputs, width):
    """Mixed_6: 17×17 maps; convolutions of 7×1 and 1×7, the inner ones `width` channels wide."""
    return Block(inputs, average, branch1x1=[(192, 1)], branch7x7=[(width, 1), (width, ROW), (192, COLUMN)],
                 branch7x7dbl=[(width, 1), (width, COLUMN), (width, ROW), (width, COLUMN), (192, ROW)], branch_pool=[(192, 1)])


def block_d(inputs):
    """Mixed_7a: 17×17 → 8×8."""
    return Block(inputs, halve, branch3x3=[(192, 1), (320, 3, *HALVED)],
                 branch7x7x3=[(192, 1), (192, ROW), (192, COLUMN), (192, 3, *HALVED)], branch_pool=[])


def block_e(inputs, pool):
    """Mixed_7: 8×8 maps; 2048 channels, with forks at the ends of two branches."""
    fork = [(384, (1, 3)), (384, (3, 1))]
    return Block(inputs, pool, branch1x1=[(320, 1)], branch3x3=[(384, 1), fork], branch3x3dbl=[(448, 1), (384, 3), fork],
                 branch_pool=[(192, 1)])


class Inception(nn.Sequential):
    """Inception v3 (Szegedy et al. 2015) as FID uses it: float32 pictures [N, 3, H, W] in [0, 1] → float32 features [N, 2048].

    This is TensorFlow's network of 2015 with its peculiarities, such as the maximum in the last block alone. It is in evaluation
    mode.
    """

    def __init__(self):
        super().__init__(
            ("Conv2d_1a_3x3", ConvBN(3, 32, 3, *HALVED)), ("Conv2d_2a_3x3", ConvBN(32, 32, 3, 1, 0)),
            ("Conv2d_2b_3x3", ConvBN(32, 64, 3)), ("maxpool1", nn.MaxPool2D(3, 2)),
            ("Conv2d_3b_1x1", ConvBN(64, 80, 1)), ("Conv2d_4a_3x3", ConvBN(80, 192, 3, 1, 0)), ("maxpool2", nn.MaxPool2D(3, 2)),
            ("Mixed_5b", block_a(192, 32)), ("Mixed_5c", block_a(256, 64)), ("Mixed_5d", block_a(288, 64)),  # 35×35
            ("Mixed_6a", block_b(288)), ("Mixed_6b", block_c(768, 128)), ("Mixed_6c", block_c(768, 160)),  # 17×17
            ("Mixed_6d", block_c(768, 160)), ("Mixed_6e", block_c(768, 192)),
            ("Mixed_7a", block_d(768)), ("Mixed_7b", block_e(1280, average)), ("Mixed_7c", block_e(2048, maximum)))  # 8×8
        self.eval()

    def forward(self, pictures):
        pictures = F.interpolate(pictures, [SIDE, SIDE], mode="bilinear")
        return super().forward(2 * pictures - 1).mean([2, 3])


@paddle.no_grad()
def features(inception, faces, batch_size=32):
    """The features of faces uint8 [N, S, S, 3] in the network `inception`: float32 [N, 2048]; shows a progress bar."""
    result = np.empty((len(faces), FEATURES), np.float32)
    with tqdm(total=len(faces), unit="face", disable=None) as bar:
        for start in range(0, len(faces), batch_size):
            pictures = faces[start:start + batch_size].transpose(0, 3, 1, 2).astype(np.float32) / 255
            result[start:start + batch_size] = inception(paddle.to_tensor(pictures)).numpy()
            bar.update(len(pictures))
    return result


def frechet_distance(a, b):
    """FID of two sets of features [N, d] and [M, d]: the Fréchet distance of the Gaussians with their means and covariances.

    |mean_a - mean_b|² + tr(cov_a + cov_b - 2 √(cov_a cov_b)), in float64. It falls with the number of faces: compare it only
    between equal numbers. Raises UserError where the root has a large imaginary part.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    gap = a.mean(axis=0) - b.mean(axis=0)
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = matrix_root(cov_a @ cov_b)
    if not np.isfinite(root).all():
        offset = OFFSET * np.eye(len(cov_a))
        root = matrix_root((cov_a + offset) @ (cov_b + offset))
    if not np.allclose(np.diagonal(root).imag, 0, atol=1e-3):
        raise UserError(f"no FID of {len(a)} and {len(b)} faces: the root of their covariances is not real; take more faces", 1)
    return float(gap @ gap + np.trace(cov_a) + np.trace(cov_b) - 2 * np.trace(root).real)


def matrix_root(matrix):
    """The square root of a matrix, without SciPy's warnings (before 1.16 on stdout): of few faces it is singular."""
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", linalg.LinAlgWarning)
        return linalg.sqrtm(matrix)


def kernel_distance(a, b, seed):
    """KID of two sets of features [N, d] and [M, d]: (mean, standard deviation) of `squared_mmd` over random subsets.

    As usual there are 100 subsets of 1000 faces (of all, where a set has fewer). The mean does not depend on the number of faces.
    """
    size = min(KID_FACES, len(a), len(b))
    estimates = []
    for i in range(KID_SUBSETS):
        random = draws(seed, "kid", i)
        estimates.append(squared_mmd(*(x[random.choice(len(x), size, replace=False)].astype(np.float64) for x in (a, b))))
    return float(np.mean(estimates)), float(np.std(estimates))


def squared_mmd(a, b):
    """The unbiased estimate of MMD² between features [n, d] and [n, d] with the kernel (x·y / d + 1)³; it may be below 0."""
    count, width = a.shape
    aa, bb, ab = ((x @ y.T / width + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    within = aa.sum() - np.trace(aa) + bb.sum() - np.trace(bb)
    return within / (count * (count - 1)) - 2 * ab.mean()


def find_inception(path=None):
    """The file with Inception's weights: `path`, or that in pytorch-fid's place, which is downloaded where it is missing.

    Raises UserError where `path` is no file or the download fails.
    """
    if path is not None:
        if not Path(path).is_file():
            raise UserError(f"--inception {path}: no such file; {BY_HAND}")
        return Path(path)
    path = Path.home() / ".cache" / "torch" / "hub" / "checkpoints" / Path(URL).name
    if not path.exists():
        fetch(URL, path, "sha256", SHA256, BY_HAND)
    return path


def load_inception(path):
    """The `Inception` network with pytorch-fid's weights. Raises UserError for any other file, before it is parsed."""
    content = Path(path).read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise UserError(f"{path}: not pytorch-fid's weights, or a part of them; delete it, or {BY_HAND}")
    try:
        arrays = read_torch(content)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: holds more than weights ({error})") from None
    inception = Inception()
    arrays = {"inception." + name.replace("running_mean", "_mean").replace("running_var", "_variance"): array
              for name, array in arrays.items()}
    for name, shape in network_shapes("inception", inception).items():
        if name not in arrays or list(arrays[name].shape) != list(shape):
            raise UserError(f"{path}: {name} is missing or has another shape; this file is of another network")
    set_network("inception", inception, arrays)
    return inception
