"""How large each network is and what a face costs, at its usual size and the published width: a Markdown table.

    python -m benchmarks.networks

FLOPs are multiplications and additions of the convolutions and dense layers, forward, for one face; zeros around a map count as
numbers do. Megabytes are those of the weights and the statistics of batch normalisation.
"""
from support.cli import Parser, run_command

from math import prod

import paddle
import paddle.nn as nn

import recipe
import zoo
from support.device import choose_device
from training.layers import ResizeConv2D

HEAD = ["`--arch`", "px", "weights, millions: G, D", "GFLOP a face: G, D", "MB, float32: G, D", "MB, float16: G, D"]


def flops(layer, x, y):
    """Multiplications and additions that take a layer's input x to its output y.

    Each weight is used once for each pixel of the smaller of the two maps: a convolution has a sum for each pixel of y, a
    transposed one spreads each pixel of x. One that resizes before (ResizeConv2D) is computed as a transposed one, its 3×3
    kernels as 4×4.
    """
    weights = layer.weight.size * 16 // 9 if isinstance(layer, ResizeConv2D) else layer.weight.size
    return 2 * weights * min(prod(x.shape[2:]), prod(y.shape[2:]))


def measure(network, inputs):
    """A network's learned weights, its FLOPs for `inputs` [1, …], and how many numbers its file holds."""
    counted = []

    def count(layer, inputs, output):
        counted.append(flops(layer, inputs[0], output))

    for layer in network.sublayers():
        if isinstance(layer, (nn.Conv2D, nn.Conv2DTranspose, nn.Linear)):
            layer.register_forward_post_hook(count)
    network.eval()
    with paddle.no_grad():
        network(inputs)
    learned = sum(weight.size for weight in network.parameters() if not weight.stop_gradient)
    return learned, sum(counted), sum(tensor.size for tensor in network.state_dict().values())


def row(name):
    """The line of the table for a network, as train.py --arch builds it."""
    settled, size = recipe.defaults(arch=name), zoo.ZOO[name].sizes[0]
    plan = zoo.make_plan(settled, size, {})
    pair = [measure(zoo.build_generator(plan), paddle.zeros([1, plan.z_dim])),
            measure(zoo.build_discriminator(plan, settled.loss), paddle.zeros([1, 3, size, size]))]
    columns = [[f"{learned / 1e6:.1f}", f"{operations / 1e9:.2f}", f"{4 * numbers / 1e6:.1f}", f"{2 * numbers / 1e6:.1f}"]
               for learned, operations, numbers in pair]
    return [f"`{name}`", str(size), *map(", ".join, zip(*columns))]


def main():
    """The command: prints the table."""
    Parser(__doc__).parse_args()
    choose_device("cpu")
    for cells in (HEAD, ["---"] * len(HEAD), *map(row, zoo.ZOO)):
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    run_command(main)
