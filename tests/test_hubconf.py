"""The pretrained generators in other people's programs, through paddle.hub."""
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import generator
from training.weights import PRETRAINED

ROOT = Path(__file__).parent.parent
PROGRAM = """
import sys, types
import numpy as np
import paddle

paddle.set_device("cpu")
sys.modules["network"] = own = types.ModuleType("network")  # the program's own module of that name
before, path = set(sys.modules), list(sys.path)
print(paddle.hub.list(sys.argv[1], source="local"))
print(paddle.hub.help(sys.argv[1], "celeba64", source="local"))
generator = paddle.hub.load(sys.argv[1], "celeba64", source="local")
larger = paddle.hub.load(sys.argv[1], "celeba128", source="local")  # one after the other
assert larger.faces([0]).shape == (1, 128, 128, 3)
assert isinstance(generator, paddle.nn.Layer) and not generator.training
np.save("faces.npy", generator.faces([0, 7]))
assert generator(paddle.zeros([2, 100])).shape == [2, 3, 64, 64]
assert sys.modules["network"] is own and sys.path == path
assert not {"zoo", "support.cli", "support.device", "training.checkpoint", "training.layers", "hubconf"} & set(sys.modules)
"""


def run(program, folder):
    return subprocess.run([sys.executable, "-c", program, str(ROOT)], check=False, cwd=folder, capture_output=True, text=True)


def test_a_program_elsewhere_draws_the_same_faces_and_keeps_its_own_modules(tmp_path, command):
    done = run(PROGRAM, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "['celeba128', 'celeba64']" in done.stdout and "non-commercial" in done.stdout
    assert command(generator, "--seeds", "0,7", "--weights", PRETRAINED, "--out", tmp_path, "--device", "cpu").status == 0
    faces = np.load(tmp_path / "faces.npy")
    assert faces.shape == (2, 64, 64, 3) and faces.dtype == np.uint8
    for seed, face in zip((0, 7), faces):
        drawn = np.asarray(Image.open(tmp_path / f"seed{seed:04d}.png"))
        assert np.abs(drawn.astype(int) - face).max() <= 1  # maths libraries round otherwise where Paddle was imported first


def test_a_missing_package_is_named(tmp_path):
    program = 'import sys; sys.modules["msgspec"] = None; import paddle; paddle.hub.load(sys.argv[1], "celeba64", source="local")'
    done = run(program, tmp_path)
    assert done.returncode == 1 and "Missing dependencies: msgspec" in done.stderr
