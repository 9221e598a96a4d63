"""The page: what it draws, what it refuses, how it is served and ends, and a visit by a browser."""
import asyncio
import base64
import http.server
import io
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

gr = pytest.importorskip("gradio", reason="requirements-app.txt is not installed")
import httpx

import app
from intake import detection
from latent import directions, projection
from network import draw_faces
from support import answers, pages, serving
from training import checkpoint, weights
from training.randomness import between, face_inputs
from zoo import Plan, build_generator

STILL = [0, "", *[0] * len(answers.MOVES)]  # the tab of one's own face: seed 0, no z, not moved
PLAN = Plan(size=16, z_dim=8, channels=4, labels={"Smiling": [1, -1]})
PRETRAINED = {"pretrained/celeba64", "pretrained/celeba128"}


@pytest.fixture(scope="module")
def generators():
    return {"one": build_generator(PLAN), "two": build_generator(PLAN._replace(labels={})),
            "uniform": build_generator(PLAN._replace(labels={}, noise="uniform"))}


@pytest.fixture(scope="module")
def page(generators, tmp_path_factory):
    return answers.Page(generators, tmp_path_factory.mktemp("page"))


def seen(gallery):
    return np.stack([np.asarray(picture) for picture, _ in gallery])


def test_faces_are_those_of_their_seeds(page, generators):
    gallery = page.faces("two", 7, 4, 1.0, [""])
    assert [caption for _, caption in gallery] == ["7", "8", "9", "10"]
    faces = pages.enlarged(draw_faces(generators["two"], face_inputs(generators["two"].plan, range(7, 11))))
    assert (seen(gallery) == np.stack([np.asarray(face) for face in faces])).all()
    assert (np.asarray(Image.open(page.picture(gallery))) == np.vstack([np.hstack(faces[:2]), np.hstack(faces[2:])])).all()


def test_attributes_and_truncation_reach_the_generator(page):
    smiling, serious = (page.inputs("one", [3], 1.0, [label])[1] for label in "+-")
    assert smiling[0, -1] == 1 and serious[0, -1] == -1 and (smiling[:, :-1] == serious[:, :-1]).all()
    assert np.allclose(page.inputs("one", [3], 0.75, ["+"])[1][:, :-1], smiling[:, :-1] * 0.75)


def test_an_interpolation_is_a_film_there_and_back(page):
    film = Image.open(page.walk("one", 1, 5, 1.0, [""]))
    assert film.n_frames == 2 * pages.FRAMES - 2


def test_variations_grow_from_the_face_itself(page):
    pictures = seen(page.vary("two", 4, 1, 1.0, 1.0, [""])).astype(int)
    assert (pictures[0] == seen(page.faces("two", 4, 1, 1.0, [""]))[0]).all()
    distances = [abs(picture - pictures[0]).mean() for picture in pictures]
    assert distances[0] == 0 and distances[1] < distances[3] < distances[7]
    assert (seen(page.vary("two", 4, 2, 1.0, 1.0, [""]))[7] != pictures[7]).any()
    z = page.inputs("uniform", [1, 2], 1.0, [])[1]
    assert abs(z).max() <= 1 and abs(between(page.generators["uniform"].plan, *z, np.linspace(0, 1, 9))).max() <= 1


def test_work_is_bounded_for_any_values(page):
    assert len(page.faces("one", -5, 10 ** 9, 7.0, ["<script>", "more"])) == app.MAX_FACES
    assert page.faces("one", 10 ** 30, None, -1.0, [])[0][1] == str(pages.MAX_SEED)
    for odd in (math.nan, math.inf, None, "many", [], "9" * 400):
        assert len(page.faces("one", odd, odd, odd, [odd])) in (16, app.MAX_FACES)
        assert len(page.vary("one", odd, odd, odd, odd, [odd])) == answers.VARIATIONS and page.walk("one", odd, odd, odd, [odd])
    for unknown in ("../../etc/passwd", ["one"], None):
        with pytest.raises(gr.Error, match="no such generator"):
            page.faces(unknown, 0, 1, 1.0, [])


def test_the_address_holds_the_state_of_the_page(page):
    def asked(**query):
        return page.asked_for(SimpleNamespace(query_params=query))

    assert asked() == ["one", 0, 16, 1, *STILL, ""]
    assert asked(weights="two", first="7", count="4", truncation="0.75", labels="+") == ["two", 7, 4, 0.75, *STILL, "+"]
    assert asked(weights="three", first="x", count="1e9", truncation="-3", labels="?,?,?") == [
        "one", 0, app.MAX_FACES, answers.MIN_TRUNCATION, *STILL, ""]
    own = pages.text_of(np.linspace(-2, 2, 8))
    assert asked(weights="two", mine="5", z=own, moves="1,-9,x") == ["two", 0, 16, 1, 5, own, 1, -3, 0, 0, 0, ""]
    assert asked(weights="one", z=own)[5] == ""  # which has a label more
    assert asked(first="nan", count="inf", truncation="nan") == asked()


def test_a_face_of_ones_own_is_moved_and_walked_from(page, generators, monkeypatch):
    monkeypatch.setattr(directions, "FACES", 30)
    own = np.linspace(-2, 2, 8).astype(np.float32)
    text = pages.text_of(own)
    assert pages.inputs_in(text, 8) == pytest.approx(own, abs=2e-3)
    for odd in ("", "x", text[:-4], pages.text_of(own * 9), pages.text_of(own * np.nan), None, "é"):
        assert pages.inputs_in(odd, 8) is None
    gallery, film = page.change("two", 3, text, [0, 0, 0, 0, 0], 1, 1.0, [""])
    wanted = pages.enlarged(draw_faces(generators["two"], pages.inputs_in(text, 8)[None]))[0]
    assert (seen(gallery) == np.asarray(wanted)).all() and Image.open(film).n_frames == 2 * pages.FRAMES - 2
    before, after = seen(page.change("two", 3, text, [3, 0, 0, 0, 0], 1, 1.0, [""])[0])
    assert (before == np.asarray(wanted)).all() and (after != before).any()
    before, _ = seen(page.change("two", 3, "", [0] * 5, 1, 1.0, [""])[0])
    assert (before == seen(page.faces("two", 3, 1, 1.0, [""]))[0]).all()


def test_a_photo_becomes_z_or_a_message(page, monkeypatch, tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "grey").save(file, "jpeg")
    photo = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
    for name, value in (("POOL", 4), ("STARTS", 1), ("STEPS", 1), ("find_faces", lambda photo: detection.POINTS[None])):
        monkeypatch.setattr(projection, name, value)
    before = set(tmp_path.rglob("*")), set(page.folder.rglob("*"))
    assert pages.inputs_in(page.find("two", photo), 8) is not None and page.find("two", "") == gr.skip()
    assert before == (set(tmp_path.rglob("*")), set(page.folder.rglob("*")))  # the photo is not stored
    for odd in ("unreadable", "data:,", "data:image/jpeg;base64,AAAA", "data:image/jpeg;base64,é", photo[:-40],
                photo + "A" * pages.MAX_PHOTO, 5):
        with pytest.raises(gr.Error, match="photo: "):
            page.find("two", odd)
    monkeypatch.setattr(projection, "find_faces", lambda photo: [])
    with pytest.raises(gr.Error, match="no face was found"):
        page.find("two", photo)


def test_every_word_is_said_in_every_language():
    assert all(len(said) == len(app.LANGUAGES) and all(said) for said in app.WORDS.values())


@pytest.fixture
def runs(generators, tmp_path, monkeypatch):
    """A working directory with two runs, of which one was never scored."""
    monkeypatch.chdir(tmp_path)
    for name in ("Output/best", "Output/generator", "Output-2/generator"):
        path = tmp_path / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        checkpoint.save_generator(path, generators["two"], {
            **PLAN._asdict(), "labels": {}, "where": "", "pictures": "", "data": "", "step": 1, "images_seen": 10 ** 6, "seed": 0,
            "scores": {}})
    (tmp_path / "Output-empty").mkdir()
    return tmp_path


def test_every_run_is_offered_also_one_that_was_never_scored(runs):
    assert set(app.find_weights([])) == {"Output/best", "Output-2/generator", *PRETRAINED}
    assert list(app.find_weights(["Output/generator.safetensors"])) == ["Output/generator"]


def test_a_broken_file_is_skipped_unless_it_was_named(runs, command, monkeypatch, capsys):
    (runs / "Output/best.safetensors").write_bytes(b"broken")
    assert set(app.find_weights([])) == {"Output-2/generator", *PRETRAINED}
    line, = (line for line in capsys.readouterr().out.splitlines() if line.startswith("skipped"))
    assert "Output/best.safetensors" in line
    for arguments in (["Output/best.safetensors"], ["Output-2/generator.safetensors", "none.safetensors"]):
        result = command(app, "--port", free_port(), *arguments)
        assert result.status == 2 and arguments[-1] in result.err and result.err.count("\n") == 1
    (runs / "Output-2/generator.safetensors").unlink()
    monkeypatch.setattr(weights, "PRETRAINED", runs / "none.safetensors")
    result = command(app, "--port", free_port())
    assert result.status == 2 and result.err.count("\n") == 1 and "no usable weights" in result.err


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_a_host_or_port_that_cannot_be_used_gets_a_sentence(command):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for host, port in (("127.0.0.1", taken.getsockname()[1]), ("192.0.2.1", 7860), ("no such host", 7860), ("x" * 80, 7860)):
            result = command(app, "--host", host, "--port", port)
            assert result.status == 2 and result.err.count("\n") == 1 and f"--host {host} --port {port}" in result.err


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
@pytest.mark.parametrize("host, number", [("127.0.0.1", signal.SIGTERM), ("0.0.0.0", signal.SIGINT)])
def test_a_signal_ends_it_and_leaves_nothing(runs, host, number):
    """Also while somebody looks at it: an answer that never ends is under way."""
    (runs / "tmp").mkdir()
    port = free_port()
    program = subprocess.Popen(
        [sys.executable, app.__file__, "--host", host, "--port", str(port), "Output/best.safetensors"],
        env={**os.environ, "TMPDIR": str(runs / "tmp")}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = ""
    while f":{port}" not in said:
        said += (line := program.stdout.readline())
        assert line, said
    assert ("no password" in said) == (host == "0.0.0.0") and "share" not in said and said.count("http") == 1
    url = f"http://127.0.0.1:{port}/"
    faces = httpx.get(url + "config", timeout=60).json()["dependencies"][-1]["id"]
    httpx.post(url + "gradio_api/queue/join", timeout=60, json={
        "data": [None, "Output/best", 0, 1, 0, None, 0.6, 1, "Output/best", 0, 1, 1.0, *STILL], "fn_index": faces,
        "session_hash": "me"})
    with httpx.stream("GET", url + "gradio_api/heartbeat/me", timeout=60) as beats:
        next(beats.iter_raw())

        def left():
            return [str(path) for path in (runs / "tmp").rglob("*") if path.is_file() or "faces-" in path.name]

        assert left()
        program.send_signal(number)
        assert program.communicate(timeout=60)[0] == ""
    assert program.returncode == 0 and not left()


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_a_signal_while_it_loads_says_nothing():
    code = "import app, os, signal; os.kill(os.getpid(), signal.SIGTERM)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=os.path.dirname(app.__file__), capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGTERM, "", "")


FACTS = {"size": 16, "images_seen": 1000}


@pytest.mark.parametrize("names, switches", [("one two", [True]), ("two", [])])
def test_the_attributes_offered_are_those_that_the_generator_knows(generators, tmp_path, names, switches):
    blocks, _ = app.build({name: (generators[name], FACTS) for name in names.split()}, tmp_path)
    function = next(function for function in blocks.fns.values() if function.name == "switch")

    def shown(name):
        return [part["visible"] for part in asyncio.run(blocks.process_api(function, [name]))["data"]]

    assert shown("two") == [False] * (1 + len(switches)) and shown(names.split()[0]) == [bool(switches), *switches]


@contextmanager
def serving_at(generators, folder, root_path=None):
    """The page's address, served as main() serves it."""
    found = {name: (generator, FACTS) for name, generator in generators.items()}
    server = app.build_server(*app.build(found, folder), root_path)
    with app.listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def served(generators, tmp_path_factory):
    with serving_at(generators, tmp_path_factory.mktemp("served")) as url:
        yield url


def asking(url):
    """Asks as a browser does, through the queue: ask([weights, first, count, …], visitor) → success or "refused", output."""
    events = httpx.get(url + "config", timeout=60).json()["dependencies"]
    fn, = (event["id"] for event in events if event["api_name"] == "draw")

    def draw(shown, visitor):
        joined = httpx.post(url + "gradio_api/queue/join", timeout=60, json={
            "data": [None, "two", 0, 1, 0, None, 0.6, 1, *shown[:4], *STILL, *shown[4:]], "fn_index": fn,
            "session_hash": visitor})
        if joined.status_code == 503 and "Queue is full" in joined.text:
            return "refused", None
        with httpx.stream("GET", url + f"gradio_api/queue/data?session_hash={visitor}", timeout=60) as results:
            messages = (json.loads(line[5:]) for line in results.iter_lines() if line.startswith("data:"))
            return next((message["success"], message["output"]) for message in messages if message["msg"] == "process_completed")

    return draw


@pytest.fixture(scope="module")
def ask(served):
    return asking(served)


PREFIX = "/user/7/gradio/7860"


class Proxy(http.server.BaseHTTPRequestHandler):
    """Forwards requests under PREFIX to `server.site`, without the prefix, with the visitor's Host or with its own."""

    def do_GET(self):
        if not self.path.startswith(PREFIX + "/"):
            return self.send_error(404)
        left_out = ("connection", "accept-encoding", "" if self.server.keeps_host else "host")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in left_out}
        headers["Accept-Encoding"] = "identity"
        body = self.rfile.read(int(headers.get("Content-Length", 0)))
        with httpx.stream(self.command, self.server.site + self.path[len(PREFIX) + 1:], content=body, headers=headers,
                          timeout=60) as answer:
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers.get("Content-Type", ""))
            self.end_headers()
            for part in answer.iter_raw():
                self.wfile.write(part)

    do_POST = do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture(params=["path", "address"])
def proxied(request, generators, tmp_path):
    """The page's address at a proxy; --root-path names it where the proxy hides it from the page."""
    proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    url = f"http://127.0.0.1:{proxy.server_port}{PREFIX}"
    proxy.keeps_host = request.param == "path"
    with serving_at(generators, tmp_path, app.root_path(PREFIX if proxy.keeps_host else url + "/")) as proxy.site:
        threading.Thread(target=proxy.serve_forever, args=(0.01,), daemon=True).start()
        yield url + "/"
        proxy.shutdown()
        proxy.server_close()


def test_behind_a_proxy_the_faces_have_its_address(proxied):
    success, output = asking(proxied)(["one", 7, 4, 1.0, ""], "me")
    addresses = [face["image"]["url"] for face in output["data"][0]]
    assert success and len(addresses) == 4 and all(address.startswith(proxied) for address in addresses), addresses
    assert httpx.get(addresses[0], timeout=30).headers["Content-Type"].startswith("image/")


def test_an_invalid_root_path_gets_a_sentence(command):
    for odd in ("", "/", "proxy/7860", "//elsewhere/7860", "/a b", "/\"><script>", "ftp://host/7860", "/\n",
                "/" + "a/" * 9999 + "?"):
        result = command(app, "--root-path", odd)
        assert result.status == 2 and result.err.count("\n") == 1 and "--root-path" in result.err and len(result.err) < 400


@pytest.mark.parametrize("path", ["/etc/passwd", "app.py", "README.md", "../../etc/passwd", "pretrained/celeba64.safetensors"])
def test_no_file_can_be_read_through_it(served, path):
    assert httpx.get(served + "gradio_api/file=" + path, timeout=30).status_code in (403, 404)
    assert httpx.post(served + "gradio_api/upload", files={"files": b"x" * 100}, timeout=30).status_code >= 400


def test_no_address_works_around_the_queue(served):
    assert httpx.post(served + "gradio_api/run/draw", json={"data": []}, timeout=30).status_code == 404
    for path in ("monitoring", "docs", "openapi.json", "gradio_api/runs"):
        assert httpx.get(served + path, timeout=30).status_code != 200


@pytest.mark.parametrize("first, caption", [(-5, "0"), (1e30, str(pages.MAX_SEED)), ("many", "0"), (None, "0")])
def test_any_number_is_a_seed(ask, first, caption):
    success, output = ask(["one", first, -3, 9, ""], f"odd-{type(first).__name__}")
    assert success and [face["caption"] for face in output["data"][0]] == [caption]


def test_fifty_at_once_are_answered_or_refused(ask):
    with ThreadPoolExecutor(50) as visitors:
        answers = list(visitors.map(lambda number: ask(["one", number, 4, 1.0, ""], f"visitor{number}")[0], range(50)))
    assert set(answers) <= {True, "refused"} and answers.count(True) >= app.MAX_WAITING
    assert ask(["one", 50, 4, 1.0, ""], "visitor50")[0] is True


def test_idle_connections_are_closed(served, monkeypatch):
    """With no request, a part of a header, or a part of a second request; but not while an answer is being sent."""
    monkeypatch.setattr(serving, "PATIENCE", 0.2)
    place = ("127.0.0.1", int(served.rsplit(":")[-1].strip("/")))
    with httpx.stream("GET", served + "gradio_api/heartbeat/me", timeout=60) as beats:
        for sent in (b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-", b"POST /config HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx",
                     b"GET /robots.txt HTTP/1.1\r\nHost: x\r\n\r\nGET /robots"):
            with socket.create_connection(place, timeout=30) as idler:
                idler.sendall(sent)
                while idler.recv(1 << 16):
                    pass
        next(beats.iter_raw())


@pytest.fixture
def browse():
    """Opens a page in a browser: browse(url, locale="zh-CN", …) → the page."""
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome") or pytest.skip("there is no browser")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])

        def visit(url, **how):
            visitor = browser.new_page(**how)
            visitor.set_default_timeout(60_000)
            visitor.goto(url)
            visitor.wait_for_selector("#faces img")
            return visitor

        yield visit
        browser.close()


@pytest.mark.slow
@pytest.mark.parametrize("language, words", [
    ("en-US", "None of these people exists"), ("zh-CN", "这些人都不存在"), ("zh", "这些人都不存在"),
    ("zh-Hans-SG", "这些人都不存在"), ("zh-TW", "這些人都不存在"), ("zh-HK", "這些人都不存在"), ("zh-Hant", "這些人都不存在")])
def test_the_page_speaks_the_visitors_language(served, browse, language, words):
    assert words in browse(served, locale=language).inner_text("body")


@pytest.mark.slow
def test_a_visit(served, browse):
    """The address, other faces, a number, a slider, two clicks, the tabs, another generator."""
    visitor = browse(served + "?first=5&count=8")
    assert len(visitor.query_selector_all("#faces img")) == 8
    visitor.click("#again")
    visitor.wait_for_function("!location.search.includes('first=5&')")
    assert visitor.input_value("#first input") in visitor.url and "count=8" in visitor.url
    visitor.fill("#first input", "-7")  # draws, without a button, and without an error
    visitor.wait_for_function("document.querySelector('#faces .caption-label').textContent.trim() == '0'")
    slider = visitor.query_selector("#count input[type=range]").bounding_box()
    visitor.mouse.click(slider["x"] + slider["width"] - 2, slider["y"] + slider["height"] / 2)
    visitor.wait_for_function(f"document.querySelectorAll('#faces img').length == {app.MAX_FACES}")
    assert not visitor.query_selector(".toast-body")
    for place in (2, 5):
        visitor.query_selector_all("#faces img")[place].click()
        visitor.wait_for_function(f"document.querySelector('#faces .selected .caption-label').textContent.trim() == '{place}'")
    for place, picture in ((1, "#walk img"), (2, "#vary img"), (3, "#journey img"), (4, "#side2 img")):
        visitor.locator("button[role=tab]").nth(place).click()
        visitor.wait_for_selector(picture)
        if place == 1:
            assert [visitor.input_value(f"#{end} input") for end in ("start", "end")] == ["2", "5"]
    assert visitor.get_by_text("Smiling").is_visible()
    visitor.click("#weights input")
    visitor.get_by_role("option").nth(1).click()
    visitor.get_by_text("Smiling").wait_for(state="hidden")


@pytest.mark.slow
def test_a_visit_with_a_photo(served, browse, monkeypatch, tmp_path):
    """The photo becomes z in the address, is shown on the visitor's page, and a slider moves the face."""
    monkeypatch.setattr(directions, "FACES", 30)
    for name, value in (("POOL", 4), ("STARTS", 1), ("STEPS", 1), ("find_faces", lambda photo: detection.POINTS[None])):
        monkeypatch.setattr(projection, name, value)
    Image.new("RGB", (64, 64), "grey").save(tmp_path / "me.jpg")
    visitor = browse(served + "?weights=two")
    visitor.locator("button[role=tab]").nth(3).click()
    visitor.wait_for_selector("#changed img")
    with visitor.expect_file_chooser() as chooser:
        visitor.click("#upload")
    chooser.value.set_files(tmp_path / "me.jpg")
    visitor.wait_for_selector("#photo img")
    visitor.wait_for_function("location.search.includes('z=')")
    slider = visitor.query_selector("#Smiling input[type=range]").bounding_box()
    visitor.mouse.click(slider["x"] + slider["width"] - 2, slider["y"] + slider["height"] / 2)
    visitor.wait_for_function("location.search.includes('moves=3')")
    visitor.wait_for_selector("#journey img")
    assert not visitor.query_selector(".toast-body")
    assert visitor.evaluate("document.documentElement.scrollWidth") <= visitor.viewport_size["width"]


@pytest.mark.slow
def test_a_visit_through_a_proxy(proxied, browse):
    visitor = browse(proxied)
    visitor.click("#again")
    visitor.wait_for_function("location.search.includes('first=')")
    visitor.wait_for_function("[...document.querySelectorAll('#faces img')].every(image => image.naturalWidth)")


@pytest.mark.slow
@pytest.mark.parametrize("width, height", [(390, 844), (1280, 900)])
def test_all_faces_fit_on_the_screen(served, browse, width, height):
    """On a phone, too: each is whole and within the width, and the page alone scrolls."""
    visitor = browse(served + "?count=36", viewport={"width": width, "height": height})
    visitor.wait_for_function("document.querySelectorAll('#faces img').length == 36")
    boxes = [image.bounding_box() for image in visitor.query_selector_all("#faces img")]
    frame = visitor.query_selector("#faces").bounding_box()
    for box in boxes:
        assert box["x"] >= 0 and box["x"] + box["width"] <= width and 60 <= box["width"] <= 160
        assert abs(box["width"] - box["height"]) < 2 and box["y"] + box["height"] <= frame["y"] + frame["height"]
    assert visitor.evaluate("document.documentElement.scrollWidth") <= width
