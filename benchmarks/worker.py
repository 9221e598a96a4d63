"""One side of a comparison, in a process of its own: does its work each time a line comes in, and answers with the seconds.

    python benchmarks/worker.py KIND [ARGUMENTS…]       (speed.py starts these)

The kinds of work, each on batches of 128 and pictures of 64 px:
    ours      train.py's step
    paddle    the same step with nothing tuned: no settings, Paddle's own layers, D's gradients computed in G's updates too
    torch     a plain PyTorch DCGAN of the same networks and updates; D frozen and G's graph spared, as in train.py
    matmul    a float32 product of two 2048×2048 matrices
    forward   the generator alone, WEIGHTS, on ten batches of 100
"""
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parent.parent))
BATCH, SIDE = 128, 2048
OPTIONS = SimpleNamespace(seed=0, d_steps=1, g_steps=2, z_dim=100, channels=64, lr_d=2e-4, lr_g=2e-4, beta1=0.5,
                          beta2=0.999, arch="dcgan", noise="normal", labels={}, up="deconv", spectral_norm=False, loss="bce",
                          label_smoothing=0, r1=0, augment="off")


def paddle_step(train):
    """A function that does one step with train.py's own train_step."""
    import paddle

    players = train.build_players(64, OPTIONS)
    reals = paddle.rand([BATCH, 3, 64, 64]) * 2 - 1
    steps = iter(range(1_000_000))
    return lambda: train.train_step(next(steps), iter([(reals, None)]), players, OPTIONS)


def ours():
    """train.py's step, on a CPU set up as train.py sets it up."""
    import runtime  # noqa: I001
    import train

    runtime.choose_device("cpu")
    return paddle_step(train)


def paddle():
    """The same step with what makes it fast undone."""
    import paddle

    paddle.matmul(paddle.ones([8, 8]), paddle.ones([8, 8]))  # the maths library reads its settings here, runtime.py's later
    import convolution
    import train

    convolution.by_the_batch = lambda *_: False
    train.frozen = lambda _: nullcontext()
    return paddle_step(train)


def torch():
    """A plain PyTorch step."""
    import torch
    from torch import nn
    from torch.nn.functional import binary_cross_entropy_with_logits as bce

    def up(inputs, outputs, *geometry):
        return [nn.ConvTranspose2d(inputs, outputs, *geometry, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    def down(inputs, outputs):
        return [nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)]

    G = nn.Sequential(*up(100, 512, 4, 1, 0), *up(512, 256, 4, 2, 1), *up(256, 128, 4, 2, 1), *up(128, 64, 4, 2, 1),
                      nn.ConvTranspose2d(64, 3, 4, 2, 1, bias=False), nn.Tanh())
    D = nn.Sequential(nn.Conv2d(3, 64, 4, 2, 1, bias=False), nn.LeakyReLU(0.2), *down(64, 128), *down(128, 256),
                      *down(256, 512), nn.Conv2d(512, 1, 4, 1, 0, bias=False), nn.Flatten(0))
    g_adam, d_adam = (torch.optim.Adam(network.parameters(), 2e-4, (0.5, 0.999)) for network in (G, D))
    reals, ones, zeros = torch.rand(BATCH, 3, 64, 64) * 2 - 1, torch.ones(BATCH), torch.zeros(BATCH)

    def update(adam, loss):
        adam.zero_grad()
        loss.backward()
        adam.step()

    def step():
        with torch.no_grad():
            fakes = G(torch.randn(BATCH, 100, 1, 1))
        update(d_adam, bce(D(reals), ones) + bce(D(fakes), zeros))
        D.requires_grad_(False)
        for _ in range(2):
            update(g_adam, bce(D(G(torch.randn(BATCH, 100, 1, 1))), ones))
        D.requires_grad_(True)

    return step


def matmul():
    """A large product, as fast as the maths library does it."""
    import runtime  # noqa: I001
    import paddle

    runtime.choose_device("cpu")
    a, b = paddle.rand([SIDE, SIDE]), paddle.rand([SIDE, SIDE])
    return lambda: paddle.matmul(a, b)


def forward(weights):
    """The generator's forward pass on a thousand z, and nothing else."""
    import runtime  # noqa: I001
    import paddle
    from checkpoint import load_generator
    from randomness import face_inputs

    runtime.choose_device("cpu")
    generator, _ = load_generator(weights)
    z = paddle.to_tensor(face_inputs(generator.plan, range(100)))

    def draw():
        with paddle.no_grad():
            for _ in range(10):
                generator(z)

    return draw


if __name__ == "__main__":
    work = {"ours": ours, "paddle": paddle, "torch": torch, "matmul": matmul, "forward": forward}[sys.argv[1]](*sys.argv[2:])
    work()  # once to warm up
    print("ready", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        work()
        print(time.perf_counter() - started, flush=True)
