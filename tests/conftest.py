import http.server
import sys
import threading
from functools import cache
from types import SimpleNamespace

import paddle
import pytest

import hostile_server
import pictures
import pretreat
import torch_format
import train
from intake.photos import Crop
from intake.sources import BUILTIN
from recipe import defaults
from support import cli, device
from training.players import build_players

TINY = ("--device", "cpu", "--channels", 4, "--batch", 32, "--z-dim", 8)  # 3 steps an epoch on faces16

device.tune_cpu()
paddle.set_device("cpu")  # also where there is a GPU: what is tested is the same everywhere, but for test_gpu.py


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
            cli.run_command(script.main)
        except SystemExit as end:
            status = end.code or 0
        captured = capsys.readouterr()
        return SimpleNamespace(status=status, out=captured.out, err=captured.err)

    return run


@pytest.fixture(scope="session")
def faces_at(tmp_path_factory):
    """faces_at(64) is a folder of a hundred small faces, packed at that size."""
    @cache
    def pack(size):
        folder = tmp_path_factory.mktemp("data") / "imgs"
        folder.mkdir()
        options = SimpleNamespace(size=size, crop=Crop(), workers=2, holdout=0.05, attributes=None)
        pretreat.pack(pictures.small_faces(), [BUILTIN], folder, options)
        return folder

    return pack


@pytest.fixture(scope="session")
def faces16(faces_at):
    """A hundred small faces, packed at 16 px: a data set on which a training step takes milliseconds."""
    return faces_at(16)


@pytest.fixture
def training(command, faces16, tmp_path):
    """training("--steps", 3, out="other") trains a tiny network into tmp_path/other, or without `out` into tmp_path/run."""
    return lambda *arguments, out="run": command(train, "--data", faces16, "--out", tmp_path / out, *TINY, *arguments)


@pytest.fixture
def players_and_recipe():
    """players_and_recipe(d_steps=3) builds the players of a tiny run on faces of 16 px, by the recipe that it gives too."""
    def build(**changes):
        recipe = defaults(**{"z_dim": 8, "channels": 4, "lr_g": 2e-4, "up": "deconv", **changes})
        return build_players(recipe, 16), recipe

    return build


@pytest.fixture
def web(monkeypatch):
    """A server that misbehaves (see hostile_server.py)."""
    with hostile_server.listening(monkeypatch) as server:
        yield server


@pytest.fixture
def save(monkeypatch):
    """save(content, zipped) → the bytes that torch.save makes of it, in either format."""
    return torch_format.saver(monkeypatch)


@pytest.fixture
def server(monkeypatch):
    """A server on loopback, at server.url. Whatever is asked for, it answers with `server.content`.

    status  of the answer; with another than 200 there is no content
    breaks  how many bytes come before a connection breaks off; None: all that was announced
    asked   the Range header, or None, of each request
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range")
            server.asked.append(wanted)
            start = int(wanted[6:-1]) if wanted and server.ranges else 0
            status = 416 if start >= len(server.content) > 0 else 206 if start else 200
            self.send_response(server.status if server.status != 200 else status)
            content = server.content[start:] if server.status == 200 and status != 416 else b""
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Type", server.kind)
            self.end_headers()
            self.wfile.write(content[:server.breaks])

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.status, server.breaks, server.ranges, server.asked = b"", 200, None, True, []
    server.kind = "application/zip"
    server.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
