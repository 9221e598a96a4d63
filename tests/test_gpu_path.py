"""The GPU's path through a training step, as far as a CPU can show it: types in mixed precision, copies, kernels."""
from collections import Counter
from contextlib import contextmanager
from itertools import product

import numpy as np
import paddle
import pytest

import dataReader
import zoo
from augment import POLICIES
from network import LOSSES
from recipe import defaults
from train import Trainer
from training.players import build_players, networks_and_adams

MAX_KERNELS = 640  # a step of the default recipe; on a GPU each takes longer to start than a small batch takes to compute
VIEWS = ("reshape", "unsqueeze", "flatten")  # operators that start no kernel, for they move nothing


@pytest.fixture(autouse=True)
def no_fast_layers(monkeypatch):
    """Paddle's own layers compute, and support.device.autocast takes paddle.amp."""
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")


@pytest.fixture
def in_16_bits(monkeypatch):
    """Emulates paddle.amp.auto_cast at level O1; gives how often each operator computed in 16 bits.

    float64 stands in for the 16-bit type: a CPU has all kernels for it, and none that takes it together with float32, just as a
    GPU has none that takes float16 together with float32. Batch normalisation is an exception there.
    """
    white_lists, counted = [()], Counter()

    @contextmanager
    def auto_cast(enable=True, custom_white_list=(), level="O1", dtype="float16"):
        white_lists.append(("conv2d", "matmul", "linear", *custom_white_list) if enable else ())
        yield
        white_lists.pop()

    def emulated(name, operator):
        def compute(*arguments, **named):
            if name in white_lists[-1]:
                counted[name] += 1
                arguments = [in_float64(argument) for argument in arguments]
                named = {key: in_float64(argument) for key, argument in named.items()}
            return operator(*arguments, **named)

        return compute

    def in_float64(argument):
        return argument.astype("float64") if isinstance(argument, paddle.Tensor) else argument

    def batch_norm(x, *others, compute=paddle._C_ops.batch_norm):
        y, *statistics = compute(x.astype("float32"), *others)
        return y.astype(x.dtype), *statistics

    monkeypatch.setattr(paddle.amp, "auto_cast", auto_cast)
    monkeypatch.setattr(paddle._C_ops, "batch_norm", batch_norm)
    for name in ("conv2d", "conv2d_transpose", "matmul", "linear"):
        if hasattr(paddle._C_ops, name):
            monkeypatch.setattr(paddle._C_ops, name, emulated(name, getattr(paddle._C_ops, name)))
    return counted


def make_trainer(size, precision="float32", labels=None, **changes):
    recipe = defaults(**{"z_dim": 8, "channels": 2, "augment": "shift", "label_smoothing": 0, **changes})
    return Trainer(build_players(recipe, size, labels, precision), recipe)


@pytest.mark.parametrize("arch, conditional", [*((arch, False) for arch in zoo.ZOO), ("dcgan", True)])
def test_types_fit_together_in_mixed_precision(in_16_bits, arch, conditional):
    size, ups = (16, ("resize", "refine", "deconv")) if arch == "dcgan" else (zoo.ZOO[arch].sizes[0], ("",))
    reals = paddle.to_tensor(np.random.default_rng(0).uniform(-1, 1, (2, 3, size, size)).astype(np.float32))
    labels = paddle.to_tensor(np.float32([[1], [-1]])) if conditional else None
    for loss, augment, up in product(LOSSES, ("off", *POLICIES), ups):
        trainer = make_trainer(size, "bfloat16", {"Smiling": [1, -1]} if conditional else None, arch=arch, loss=loss,
                               augment=augment, up=up)
        in_16_bits.clear()
        given = trainer.step(0, iter([(reals, labels)]))
        tensors = [tensor for network in networks_and_adams(trainer)[0].values() for tensor in network.state_dict().values()]
        assert {tensor.dtype for tensor in (*given, *tensors)} == {paddle.float32}
        assert in_16_bits["conv2d"] and in_16_bits["conv2d_transpose"] + in_16_bits["linear"] + in_16_bits["matmul"]


def default_step(size=64, batch=4):
    """A function that runs steps of the default recipe, and the average's, in which the kernels are as many as at any width."""
    trainer = make_trainer(size)
    faces = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
    steps = iter(range(100))

    def run():
        step = next(steps)
        trainer.step(step, iter([(dataReader.normalise(faces), None)]))
        trainer.update_average((step + 1) * batch, batch)

    run()  # the first one also makes what is then kept
    return run


def test_a_step_copies_two_arrays_to_the_device(monkeypatch):
    """Each copy waits until the GPU has done all that came before."""
    run, copied, make = default_step(), [], paddle.tensor.creation._to_tensor_non_static
    monkeypatch.setattr(paddle.tensor.creation, "_to_tensor_non_static",
                        lambda content, *others, **named: copied.append(content) or make(content, *others, **named))
    run()
    assert len(copied) == 2 and sorted(array.dtype.name for array in copied) == ["float32", "uint8"]


@pytest.mark.skipif(paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() == 0,
                    reason="this Paddle's profiler asks for a driver of CUDA")
def test_a_step_starts_few_kernels():
    run, profiles = default_step(), []
    profiler = paddle.profiler.Profiler(targets=[paddle.profiler.ProfilerTarget.CPU], on_trace_ready=profiles.append)
    profiler.start()
    run()
    profiler.stop()
    [profile], operators = profiles, []

    def visit(node):
        if str(node.type).endswith(".Operator"):
            operators.append(node.name)
        for child in node.children_node:
            visit(child)

    for node in profile.profiler_result.get_data().values():
        visit(node)
    kernels = [name for name in operators if "GradNodeAccumulation" not in name
               and not any(view in name.lower() for view in VIEWS)]
    assert 300 < len(kernels) <= MAX_KERNELS, Counter(kernels)
