"""The page that AI Studio hosts, with whatever Gradio is installed: 4, 5 or 6."""
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="requirements-hosting.txt is not installed")
import gradio_client
import httpx

import generator
from support import pages
from training.checkpoint import load_generator
from training.weights import PRETRAINED

FILE = Path(__file__).parent.parent / "faces.gradio.py"


@pytest.fixture(scope="module")
def hosted():
    """The file as a module; `import` cannot take its name."""
    spec = importlib.util.spec_from_file_location("faces_gradio", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The page's address: the file runs as a process, from another folder, and Gradio's own variables say at which port."""
    folder = tmp_path_factory.mktemp("served")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    said = folder / "said.txt"
    with open(said, "w") as output:
        program = subprocess.Popen([sys.executable, FILE], cwd=folder, stdout=output, stderr=subprocess.STDOUT, env={
            **os.environ, "GRADIO_SERVER_PORT": str(port), "GRADIO_TEMP_DIR": str(folder / "gradio"), "TMPDIR": str(folder)})
    url = f"http://127.0.0.1:{port}/"
    try:
        while f":{port}" not in said.read_text():
            with pytest.raises(subprocess.TimeoutExpired):  # else it has ended
                program.wait(0.2)
        yield url
    finally:
        program.kill()
        program.wait()
    assert "Traceback" not in said.read_text() and "gradio.live" not in said.read_text()


@pytest.fixture(scope="module")
def ask(served, tmp_path_factory):
    """Asks as Gradio's client does: ask(7, 1, api_name="/faces") → what the page shows, its files fetched."""
    return gradio_client.Client(served, verbose=False, download_files=str(tmp_path_factory.mktemp("fetched"))).predict


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_a_face_is_that_of_generator_py(ask, command, tmp_path):
    assert command(generator, "--seeds", "7", "--weights", PRETRAINED, "--device", "cpu", "--out", tmp_path).status == 0
    gallery = ask(6, 3, api_name="/faces")
    assert [face["caption"] for face in gallery] == ["6", "7", "8"]
    shown, = pages.enlarged([pixels(tmp_path / "seed0007.png")])
    assert (pixels(gallery[1]["image"]) == np.asarray(shown)).all()


def test_an_interpolation_is_a_film_from_face_to_face_and_back(ask, hosted):
    with Image.open(ask(3, 7, api_name="/film")) as film:
        assert film.format == "GIF" and film.n_frames == 2 * pages.FRAMES - 2
        ends = []
        for frame in (0, pages.FRAMES - 1):
            film.seek(frame)
            ends.append(np.asarray(film.convert("RGB")).astype(int))
    faces = [np.asarray(hosted.draw(load_generator(PRETRAINED)[0], seed, 1)[0][0]) for seed in (3, 7)]
    for end, face in zip(ends, faces):
        assert abs(end - face).mean() < 8  # 256 colours


@pytest.mark.parametrize("first, count, expected", [
    (-5, -5, (0, 1)), (1e300, 1e300, (pages.MAX_SEED, pages.MAX_FACES)), ("text", "<b>", (0, 16)), (None, [], (0, 16)),
    ({"path": "/etc/passwd"}, True, (0, 1))])
def test_any_value_is_bounded(ask, first, count, expected):
    gallery = ask(first, count, api_name="/faces")
    assert (int(gallery[0]["caption"]), len(gallery)) == expected


@pytest.mark.parametrize("path", ["/etc/passwd", str(FILE), "faces.gradio.py", str(PRETRAINED), "said.txt"])
def test_no_file_can_be_read_through_it(served, path):
    for place in ("file=", "gradio_api/file="):
        assert httpx.get(served + place + path, timeout=30).status_code in (403, 404)
    for place in ("upload", "gradio_api/upload"):
        assert httpx.post(served + place, files={"files": bytes(100_000)}, timeout=30).status_code >= 400


def test_it_asks_no_server_for_fonts(served):
    """Where Google's cannot be reached, the page would stay blank."""
    assert not httpx.get(served + "config", timeout=30).json().get("stylesheets")


@pytest.mark.slow
@pytest.mark.parametrize("width, height", [(390, 844), (1280, 900)])
def test_a_visit(served, width, height):
    """The faces, all of them on the screen; other faces; a number that is none; the film."""
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome") or pytest.skip("there is no browser")
    with sync_api.sync_playwright() as playwright:
        visitor = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"]).new_page(
            viewport={"width": width, "height": height})
        visitor.set_default_timeout(60_000)
        visitor.goto(served)
        visitor.wait_for_function("document.querySelectorAll('#faces img').length == 16")
        assert "起始种子" in visitor.inner_text("body") and "First seed" in visitor.inner_text("body")
        for box in (image.bounding_box() for image in visitor.query_selector_all("#faces img")):
            assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["width"] >= 60
        assert visitor.evaluate("document.documentElement.scrollWidth") <= width
        visitor.click("#again")
        visitor.wait_for_function("document.querySelector('#first input').value != '0'")
        visitor.wait_for_function("document.querySelector('#faces .caption-label').textContent.trim() != '0'")
        visitor.fill("#first input", "-7")
        visitor.wait_for_function("document.querySelector('#faces .caption-label').textContent.trim() == '0'")
        visitor.get_by_role("tab", name="Interpolation").click()
        visitor.wait_for_function("document.querySelector('#film img')?.naturalWidth")
        assert not visitor.query_selector(".toast-body")
