"""A generator for other programs: a static Paddle model and an ONNX file, each checked against the network itself."""
from support.cli import UserError

import contextlib
import copy
import importlib
import os
import shutil

import numpy as np
import paddle
import paddle.nn as nn
import paddle.nn.functional as F

from support.files import rebuilding, write_json
from training.layers import ResizeConv2D
from training.randomness import face_inputs

OPSET = 13  # of ONNX: old enough for most programs
MAX_DIFFERENCE = 1e-3  # from the network, of the 2 between black and white; a grey level is 0.008
EXAMPLE = '''\
import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession("generator.onnx")
z = {noise}  # another number, other faces{labels}
pictures = session.run(None, {{"z": z}})[0]  # float32 [16, 3, {size}, {size}] in [-1, 1]
faces = ((pictures + 1) * 127.5).round().astype(np.uint8).transpose(0, 2, 3, 1)
Image.fromarray(np.concatenate(faces, axis=1)).save("faces.png")
'''
NOISE = {"normal": "np.random.default_rng(0).standard_normal((16, {}), dtype=np.float32)",
         "uniform": "2 * np.random.default_rng(0).random((16, {}), dtype=np.float32) - 1",
         "uniform01": "np.random.default_rng(0).random((16, {}), dtype=np.float32)"}
LABELS = '''
z = np.concatenate([z, np.tile(np.float32({values}), (16, 1))], axis=1)  # 1 or -1 for each attribute in labels.json'''
WRITTEN = {"generator.json", "generator.pdmodel", "generator.pdiparams", "generator.pdiparams.info", "generator.onnx",
           "example.py", "labels.json", "faces.png"}  # example.py writes the last


class Leaky(nn.Layer):
    """LeakyReLU(0.2) as two ReLUs: paddle2onnx 2.1 writes another slope for Paddle's own layer."""

    def forward(self, x):
        return F.relu(x) - 0.2 * F.relu(-x)


class Doubled(nn.Layer):
    """Repeats each pixel 2×2 times, like nn.Upsample, which paddle2onnx 2.1 cannot convert."""

    def forward(self, x):
        for axis in (3, 5):
            x = x.unsqueeze(axis)
            x = paddle.concat([x, x], axis)
        return x.flatten(4, 5).flatten(2, 3)


OTHERWISE = {nn.LeakyReLU: Leaky, nn.Upsample: Doubled}


@paddle.no_grad()
def plain(generator):
    """The same network of Paddle's own layers alone, in evaluation mode, for converters know no others.

    Batch normalisation is folded into the layer before it.
    """
    layers = []
    for layer in generator:
        if isinstance(layer, ResizeConv2D):
            kernels = layer.kernels()
            layer = nn.Conv2DTranspose(*kernels.shape[:2], 4, 2, 1, bias_attr=False)
            layer.weight.set_value(kernels)
        if isinstance(layer, (nn.BatchNorm1D, nn.BatchNorm2D)):
            place = -2 if isinstance(layers[-1], nn.Unflatten) else -1
            if isinstance(layers[place], (nn.Conv2D, nn.Conv2DTranspose, nn.Linear)):
                layers[place] = folded(layers[place], layer)
                continue
        layers.append(OTHERWISE.get(type(layer), lambda layer=layer: layer)())
    network = nn.Sequential(*layers)
    network.eval()
    return network


def folded(layer, norm):
    """A convolution, a transposed one or a dense layer together with the batch normalisation behind it, in evaluation mode.

    y = (Wx + b - mean) / sqrt(variance + epsilon) · scale + shift is a layer of the same kind, with other W and b. Where the
    outputs of a dense layer become maps, each map has one scale.
    """
    outputs = 0 if isinstance(layer, nn.Conv2D) else 1  # the axis of the weights
    times = layer.weight.shape[outputs] // len(norm.weight)
    mean, variance, scale, shift = (
        tensor.repeat_interleave(times) for tensor in (norm._mean, norm._variance, norm.weight, norm.bias))
    scale = scale / paddle.sqrt(variance + norm._epsilon)
    bias = paddle.zeros_like(mean) if layer.bias is None else layer.bias
    layer = copy.deepcopy(layer)
    layer.weight.set_value(layer.weight * scale.reshape([-1 if axis == outputs else 1 for axis in range(layer.weight.ndim)]))
    layer.bias = layer.create_parameter(mean.shape, is_bias=True)
    layer.bias.set_value((bias - mean) * scale + shift)
    return layer


@contextlib.contextmanager
def quiet():
    """Inside the block nothing is printed, not by libraries in C++ either."""
    with open(os.devnull, "w") as nowhere, contextlib.ExitStack() as stack:
        for number in (1, 2):
            kept = os.dup(number)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, number)
            os.dup2(nowhere.fileno(), number)
        yield


def export(generator, folder):
    """Writes a generator into `folder` as generator.json or .pdmodel (with .pdiparams), generator.onnx, and example.py.

    Both models take z, with the labels behind it, float32 [N, inputs], and give float32 [N, 3, size, size] in [-1, 1]. Returns
    the largest difference of each from the network itself. An earlier export in `folder` is replaced as a whole. Raises UserError
    where packages are missing, a model differs, or `folder` holds other files.
    """
    try:
        with quiet():
            importlib.import_module("onnxruntime")
            importlib.import_module("paddle2onnx")  # paddle.onnx.export calls it
    except (ImportError, ValueError) as error:  # a ValueError where it was built for another Paddle
        raise UserError(f"--export needs packages that do not work here ({str(error).splitlines()[0]}); type: "
                        "pip install -r requirements-export.txt, and with Paddle 2.6 then: pip install "
                        "\"paddle2onnx<2\"") from None
    with rebuilding(folder, "--export", WRITTEN, lambda folder: (folder / "generator.onnx").exists()) as partial:
        differences = write_models(generator, partial)
        (partial / "example.py").write_text(example(generator), encoding="utf-8")
        if generator.plan.labels:
            write_json(partial / "labels.json", list(generator.plan.labels))
    return differences


def write_models(generator, folder):
    """Writes both models. Returns the largest difference of each from the network. Raises UserError where one is too large."""
    import onnxruntime

    z = face_inputs(generator.plan, range(8))
    with paddle.no_grad():
        wanted = generator(paddle.to_tensor(z)).numpy()
    network, path = plain(generator), folder / "generator"
    spec = [paddle.static.InputSpec([None, z.shape[1]], "float32", "z")]
    with quiet():
        try:
            paddle.onnx.export(network, str(path), input_spec=spec, opset_version=OPSET)
        except SystemExit:
            raise UserError("--export: paddle2onnx cannot convert this network; another version of it may do better",
                            status=1) from None
        shutil.rmtree(folder / "paddle_model_temp_dir", ignore_errors=True)  # paddle2onnx 1.3 leaves a copy of the weights there
        paddle.jit.save(network, str(path), input_spec=spec)
        static = paddle.jit.load(str(path))
        static.eval()
        drawn = {"static model": static(paddle.to_tensor(z)).numpy(),
                 "ONNX": onnxruntime.InferenceSession(f"{path}.onnx").run(None, {"z": z})[0]}
    differences = {name: float(np.abs(pictures - wanted).max()) for name, pictures in drawn.items()}
    for name, difference in differences.items():
        if not difference < MAX_DIFFERENCE:
            raise UserError(f"--export: the {name} draws other faces than the network (they differ by {difference:.2g}); "
                            "nothing was written. Another version of Paddle or paddle2onnx may do better", status=1)
    return differences


def example(generator):
    """A program that draws with generator.onnx. It has no names from the weights file in it, for they could be code."""
    plan = generator.plan
    labels = LABELS.format(values=[1] * len(plan.labels)) if plan.labels else ""
    return EXAMPLE.format(noise=NOISE[plan.noise].format(plan.z_dim), labels=labels, size=generator.size)
