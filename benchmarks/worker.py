"""One side of a comparison, in a process of its own: does its work each time a line comes in, and answers with the seconds.

    python -m benchmarks.worker KIND [ARGUMENTS…]       (speed.py starts these)

The kinds of work, on pictures of 64 px:
    step BATCH PRECISION          train.py's steps, of the plain recipe (no augmentation, transposed convolutions)
    torch BATCH LAYOUT PRECISION  the same step in plain PyTorch, nchw or channels_last; D frozen and G's graph spared, as in
                                  train.py
    matmul PRECISION              ten products of two 2048×2048 matrices, by oneDNN
    forward WEIGHTS               the generator alone, on ten batches of 100
    files                         writing a thousand faces as .png files on all cores
"""
import sys
import time
from pathlib import Path

SIDE, PRODUCTS = 2048, 10
STEPS = {16: 8, 128: 1}  # by batch: how many steps are one work


def repeated(count, work):
    """A function that does the work so many times."""
    def several():
        for _ in range(count):
            work()

    return several


def step(batch, precision):
    """train.py's own step, on a CPU set up as train.py sets it up."""
    import paddle

    from recipe import defaults
    from support.device import choose_device
    from train import Trainer
    from training.players import build_players

    choose_device("cpu")
    recipe = defaults(up="deconv", lr_g=2e-4, vision_aided=False)  # the same work as the PyTorch program
    trainer = Trainer(build_players(recipe, 64, precision=precision), recipe)
    reals = paddle.rand([int(batch), 3, 64, 64]) * 2 - 1
    steps = iter(range(1_000_000))
    return repeated(STEPS[int(batch)], lambda: trainer.step(next(steps), iter([(reals, None)])))


def torch(batch, layout, precision):
    """A plain PyTorch step."""
    import torch
    from torch import nn
    from torch.nn.functional import binary_cross_entropy_with_logits as bce

    batch = int(batch)
    order = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}[layout]

    def up(inputs, outputs, *geometry):
        return [nn.ConvTranspose2d(inputs, outputs, *geometry, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]

    def down(inputs, outputs):
        return [nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2, inplace=True)]

    G = nn.Sequential(*up(100, 512, 4, 1, 0), *up(512, 256, 4, 2, 1), *up(256, 128, 4, 2, 1), *up(128, 64, 4, 2, 1),
                      nn.ConvTranspose2d(64, 3, 4, 2, 1, bias=False), nn.Tanh()).to(memory_format=order)
    D = nn.Sequential(nn.Conv2d(3, 64, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True), *down(64, 128), *down(128, 256),
                      *down(256, 512), nn.Conv2d(512, 1, 4, 1, 0, bias=False), nn.Flatten(0)).to(memory_format=order)
    g_adam, d_adam = (torch.optim.Adam(network.parameters(), 2e-4, (0.5, 0.999)) for network in (G, D))
    reals = (torch.rand(batch, 3, 64, 64) * 2 - 1).contiguous(memory_format=order)
    ones, zeros = torch.ones(batch), torch.zeros(batch)

    def autocast():
        return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")

    def update(adam, loss):
        adam.zero_grad()
        loss.backward()
        adam.step()

    def step():
        with autocast():
            with torch.no_grad():
                fakes = G(torch.randn(batch, 100, 1, 1))
            real_logits, fake_logits = D(reals), D(fakes)
        update(d_adam, bce(real_logits.float(), ones) + bce(fake_logits.float(), zeros))
        D.requires_grad_(False)
        for _ in range(2):
            with autocast():
                logits = D(G(torch.randn(batch, 100, 1, 1)))
            update(g_adam, bce(logits.float(), ones))
        D.requires_grad_(True)

    return repeated(STEPS[batch], step)


def matmul(precision):
    """A large product, as fast as the library does it."""
    from support.device import choose_device
    from training.onednn import BFLOAT16, FLOAT32, SOURCE, TARGET, WEIGHTS, Array, Layout, product

    choose_device("cpu")
    layout = Layout((SIDE, SIDE), {"float32": FLOAT32, "bfloat16": BFLOAT16}[precision])
    multiply, arrays = product(layout, layout, layout), {part: Array(layout) for part in (SOURCE, WEIGHTS, TARGET)}
    for array in arrays.values():
        array.memory.fill(1)
    return repeated(PRODUCTS, lambda: multiply(arrays))


def forward(weights):
    """The generator's forward pass on a thousand z, and nothing else."""
    import paddle

    from support.device import choose_device
    from training.checkpoint import load_generator
    from training.randomness import face_inputs

    choose_device("cpu")
    generator, _ = load_generator(weights)
    z = paddle.to_tensor(face_inputs(generator.plan, range(100)))

    def draw():
        with paddle.no_grad():
            for _ in range(10):
                generator(z)

    return draw


def files(weights):
    """Writing a thousand faces, and nothing else."""
    from concurrent.futures import ThreadPoolExecutor
    from tempfile import TemporaryDirectory

    from network import draw_faces
    from support import figures
    from support.device import choose_device, usable_cpus
    from training.checkpoint import load_generator
    from training.randomness import face_inputs

    choose_device("cpu")
    generator, _ = load_generator(weights)
    faces = draw_faces(generator, face_inputs(generator.plan, range(100)))

    def write():
        with TemporaryDirectory() as folder, ThreadPoolExecutor(usable_cpus()) as threads:
            for start in range(0, 1000, 100):
                paths = [Path(folder) / f"{start + number}.png" for number in range(100)]
                list(threads.map(figures.save_picture, paths, faces))

    return write


if __name__ == "__main__":
    kinds = {"step": step, "torch": torch, "matmul": matmul, "forward": forward, "files": files}
    work = kinds[sys.argv[1]](*sys.argv[2:])
    for _ in range(3):  # to warm up
        work()
    print("ready", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        work()
        print(time.perf_counter() - started, flush=True)
