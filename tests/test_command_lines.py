"""Every option with values that are none: one sentence that names it, and status 2."""
import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WHOLE = ("", " ", "x", "-1", "1.5", "nan", "1e3", "9" * 23, "9" * 5000, "\x1b[2J")
DECIMAL = ("", "x", "-1", "nan", "inf", "1e400", "9" * 23, "1,5")
CHOICE = ("", "x", "CPU\n")
SEEDS = ("", "x", "-1", "1-", "3-1", "1,,2", "0-99999999999", "9" * 23, "0-999999,0-999999")
OPTIONS = {
    "pretreat": {"--size": WHOLE, "--limit": WHOLE, "--workers": WHOLE, "--box": WHOLE, "--margin": WHOLE, "--holdout": DECIMAL,
                 "--crop": CHOICE},
    "dataReader": {"--n": WHOLE, "--out": ("", "a.txt", ".")},
    "train": {"--steps": WHOLE, "--epochs": WHOLE, "--seed": WHOLE, "--channels": WHOLE, "--z-dim": WHOLE, "--batch": WHOLE,
              "--d-steps": WHOLE, "--halve-after": WHOLE, "--sample-every": WHOLE, "--lr": DECIMAL, "--ema": DECIMAL, "--r1": DECIMAL,
              "--beta1": DECIMAL, "--augment-p": DECIMAL, "--label-smoothing": DECIMAL, "--arch": CHOICE, "--noise": CHOICE,
              "--loss": CHOICE, "--augment": CHOICE, "--amp": CHOICE, "--device": CHOICE, "--preset": CHOICE},
    "generator": {"--n": WHOLE, "--seed": WHOLE, "--batch": WHOLE, "--seeds": SEEDS, "--device": CHOICE},
    "contrast": {"--n": WHOLE, "--seed": WHOLE, "--walk": SEEDS, "--sweep": SEEDS, "--out": ("", "a.txt", ".")},
    "evaluate": {"--n": WHOLE, "--seed": WHOLE, "--device": CHOICE},
    "collect": {"--num": WHOLE, "--workers": WHOLE, "--engine": CHOICE},
    "app": {"--port": WHOLE},
}
REQUIRED = {"collect": ("--keyword", "x")}


@pytest.mark.parametrize("name", OPTIONS)
def test_values_that_are_none(name, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        script = importlib.import_module(name)
    except SystemExit as missing:
        pytest.skip(str(missing))
    wrong = []
    lines = [(option, value) for option, values in OPTIONS[name].items() for value in values]
    lines += [(option,) for option in OPTIONS[name]] + [("--nonsense",), ("--nonsense=1",)]
    for line in lines:
        result = command(script, *REQUIRED.get(name, ()), *line)
        if result.status != 2 or result.err.count("\n") != 1 or line[0].partition("=")[0] not in result.err or len(result.err) > 400:
            wrong.append((line, result.status, result.err))
    assert not wrong and not os.listdir()


def test_ctrl_c_while_libraries_are_imported():
    """Ctrl-C in the first second is one line."""
    running = subprocess.Popen([sys.executable, "-X", "importtime", ROOT / "train.py", "--help"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    for line in running.stderr:
        if "numpy" in line:  # which train.py imports first
            break
    running.send_signal(signal.SIGINT)
    said = [line for line in running.stderr if not line.startswith("import time:")]
    assert running.wait() == 130 and said == ["train.py: interrupted\n"]
