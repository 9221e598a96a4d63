import os
import subprocess
import sys
from pathlib import Path

import paddle
import pytest

import zoo
from training import onednn

ROOT = Path(zoo.__file__).parent
fast = pytest.mark.skipif(not onednn.usable(), reason=f"oneDNN does not compute here: {onednn.library()}")


@fast
@pytest.mark.parametrize("tensor", [paddle.ones([3, 4]).t(), paddle.ones([4, 3], "float64"), paddle.ones([4, 4])],
                         ids=["a view", "another type", "another size"])
def test_memory_that_lies_otherwise_is_refused(tensor):
    with pytest.raises(ValueError, match="expected 48 contiguous bytes"):
        onednn.Array(onednn.Layout((4, 3), onednn.FLOAT32), tensor)


def test_the_switch_turns_to_paddles_layers_and_says_so():
    script = ("from support.device import choose_device; choose_device('cpu', aloud=True)\n"
              "from training import onednn; print(onednn.usable())")
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, onednn.SWITCH: "off"})
    assert done.stdout.split("\n")[-2] == "False" and f"slow ({onednn.SWITCH}=off)" in done.stdout


def test_a_library_of_another_version_is_left_alone(monkeypatch):
    monkeypatch.setattr(onednn, "VERSION", 99)
    monkeypatch.delenv(onednn.SWITCH, raising=False)
    assert "version 99" in onednn.library.__wrapped__() or "no oneDNN" in onednn.library.__wrapped__()
