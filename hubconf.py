"""The pretrained generators for other programs, through paddle.hub."""
import sys
from contextlib import contextmanager as _contextmanager  # paddle.hub.list does not show names with a _
from pathlib import Path as _Path
from types import MethodType as _MethodType

dependencies = ["paddle", "numpy", "safetensors", "msgspec", "psutil"]  # paddle.hub.load names those that are missing


def celeba64():
    """The pretrained generator: a network that draws faces of 64 px, in evaluation mode (a paddle.nn.Layer).

        generator = paddle.hub.load("OWNER/NAME:BRANCH", "celeba64", source="github")
        generator.faces([0, 1, 7])               # uint8 [3, 64, 64, 3]: the faces of these seeds, as generator.py draws them
        generator(paddle.randn([16, 100]))       # float32 [16, 3, 64, 64] in [-1, 1]

    source is "github", "gitee", or "local" with the path of a folder. The weights are for non-commercial research only (NOTICE).
    """
    return _load("celeba64")


def celeba128():
    """The pretrained generator of faces of 128 px; all else as with celeba64."""
    return _load("celeba128")


def _load(name):
    """The pretrained generator of this name, with its method `faces`."""
    with _own_modules():
        from network import draw_faces
        from support.device import tune_cpu
        from training.checkpoint import load_generator
        from training.randomness import face_inputs
        from training.weights import PRETRAINED

        tune_cpu()
        generator, _ = load_generator(PRETRAINED.with_name(f"{name}.safetensors"))

    def faces(self, seeds):
        return draw_faces(self, face_inputs(self.plan, seeds))

    generator.faces = _MethodType(faces, generator)
    return generator


@_contextmanager
def _own_modules():
    """Inside the block, modules come from this folder; after it, modules of the same names are the caller's again."""
    folder = _Path(__file__).resolve().parent
    names = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()} - {"hubconf"}

    def take_out():
        return {name: sys.modules.pop(name) for name in [*sys.modules] if name.partition(".")[0] in names}

    others = take_out()
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        take_out()
        sys.modules.update(others)
