import runtime  # noqa: I001  (first: it prepares the CPU before Paddle is imported)

import sys
from types import SimpleNamespace

import paddle
import pytest

import pretreat

paddle.set_device("cpu")  # also where there is a GPU: what is tested is the same everywhere


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests that take minutes")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow; add --slow"))


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs a script's main() as the shell would: command(train, "--steps", 3) → .status .out .err"""

    def run(script, *arguments):
        monkeypatch.setattr(sys, "argv", [script.__name__ + ".py", *map(str, arguments)])
        status = 0
        try:
            runtime.run_command(script.main)
        except SystemExit as end:
            status = end.code or 0
        captured = capsys.readouterr()
        return SimpleNamespace(status=status, out=captured.out, err=captured.err)

    return run


@pytest.fixture(scope="session")
def faces16(tmp_path_factory):
    """The built-in faces, packed at 16 px: a data set on which a training step takes milliseconds."""
    folder = tmp_path_factory.mktemp("data") / "imgs"
    folder.mkdir()
    options = SimpleNamespace(size=16, crop="auto", workers=2, holdout=0.05)
    pretreat.pack(pretreat.builtin_pictures(), ["skimage.data.lfw_subset()"], folder, options)
    return folder
