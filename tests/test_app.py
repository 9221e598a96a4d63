"""The page: what its buttons do, what it refuses, and a visit by a browser."""
import json
import math
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

gr = pytest.importorskip("gradio", reason="requirements-app.txt is not installed")
import httpx  # noqa: E402

import app  # noqa: E402
import checkpoint  # noqa: E402
from network import draw_faces  # noqa: E402
from randomness import between, face_inputs  # noqa: E402
from zoo import Plan, build_generator  # noqa: E402

PLAN = Plan(size=16, z_dim=8, channels=4, labels={"Smiling": [1, -1]})


@pytest.fixture(scope="module")
def generators():
    return {"one": build_generator(PLAN), "two": build_generator(PLAN._replace(labels={})),
            "uniform": build_generator(PLAN._replace(labels={}, noise="uniform"))}


@pytest.fixture(scope="module")
def page(generators):
    return app.Page(generators)


def seen(gallery):
    return np.stack([np.asarray(picture) for picture, _ in gallery])


def test_faces_are_those_of_their_seeds(page, generators):
    gallery, grid = page.faces("two", 7, 4, 1.0, "")
    assert [caption for _, caption in gallery] == ["7", "8", "9", "10"]
    faces = app.enlarged(draw_faces(generators["two"], face_inputs(generators["two"].plan, range(7, 11))))
    assert (seen(gallery) == np.stack([np.asarray(face) for face in faces])).all()
    assert (np.asarray(grid) == np.vstack([np.hstack(faces[:2]), np.hstack(faces[2:])])).all()


def test_attributes_and_truncation_reach_the_generator(page):
    smiling, serious = (page.inputs("one", [3], 1.0, [label])[1] for label in "+-")
    assert smiling[0, -1] == 1 and serious[0, -1] == -1 and (smiling[:, :-1] == serious[:, :-1]).all()
    assert np.allclose(page.inputs("one", [3], 0.5, ["+"])[1][:, :-1], smiling[:, :-1] / 2)
    assert (seen(page.faces("two", 0, 3, 0.0, "")[0]) == seen(page.faces("two", 9, 3, 0.0, "")[0])).all()


def test_a_walk_is_a_film_there_and_back(page, monkeypatch):
    path = page.walk("one", 1, 5, 1.0, "")
    film = Image.open(path)
    assert film.n_frames == 2 * app.FRAMES - 2
    monkeypatch.setattr(app, "KEPT", 2)
    others = [page.walk("one", 1, end, 1.0, "") for end in (6, 7)]
    assert sorted(os.listdir(page.folder.name)) == sorted(map(os.path.basename, others))


def test_variations_grow_from_the_face_itself(page):
    pictures = seen(page.vary("two", 4, 1, 1.0, 1.0, "")).astype(int)
    assert (pictures[0] == seen(page.faces("two", 4, 1, 1.0, "")[0])[0]).all()
    distances = [abs(picture - pictures[0]).mean() for picture in pictures]
    assert distances[0] == 0 and distances[1] < distances[3] < distances[7]
    assert (seen(page.vary("two", 4, 2, 1.0, 1.0, ""))[7] != pictures[7]).any()
    z = page.inputs("uniform", [1, 2], 1.0, [])[1]
    assert abs(z).max() <= 1 and abs(between(page.generators["uniform"].plan, *z, np.linspace(0, 1, 9))).max() <= 1


def test_two_generators_side_by_side(page):
    one, two = page.compare("one", "two", 0, 4, 1.0, "")
    assert one.size == two.size and (np.asarray(one) != np.asarray(two)).any()


def test_work_is_bounded_whatever_is_sent(page):
    assert len(page.faces("one", -5, 10 ** 9, 7.0, "<script>", "more")[0]) == app.MOST
    assert page.faces("one", 10 ** 30, None, -1.0)[0][0][1] == str(app.LARGEST)
    for odd in (math.nan, math.inf, None, "many", [], "9" * 400):
        assert len(page.faces("one", odd, odd, odd, odd)[0]) in (16, app.MOST)
        assert len(page.vary("one", odd, odd, odd, odd)) == app.VARIATIONS and page.walk("one", odd, odd, odd)
    with pytest.raises(gr.Error, match="no such generator"):
        page.faces("../../etc/passwd", 0, 1, 1.0)


def test_an_address_says_what_to_show():
    def asked(**query):
        return app.asked_for(["Smiling"], ["one", "two"], SimpleNamespace(query_params=query))

    assert asked() == ["one", 0, 16, 1, ""]
    assert asked(weights="two", first="7", count="4", truncation="0.5", labels="+") == ["two", 7, 4, 0.5, "+"]
    assert asked(weights="three", first="x", count="1e9", truncation="-3", labels="?,?,?") == ["one", 0, app.MOST, 0, ""]
    assert asked(first="nan", count="inf", truncation="nan") == asked()


def test_every_run_is_offered_also_one_that_was_never_scored(generators, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("Output/best", "Output/generator", "Output-2/generator"):
        path = tmp_path / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        checkpoint.save_generator(path, generators["two"], {
            **PLAN._asdict(), "labels": {}, "where": "", "pictures": "", "data": "", "step": 1, "images_seen": 1, "seed": 0,
            "scores": {}})
    (tmp_path / "Output-empty").mkdir()
    assert list(app.find_weights([])) == [
        "Output/best.safetensors", "Output-2/generator.safetensors", "pretrained/celeba64.safetensors"]
    assert list(app.find_weights(["Output/generator.safetensors"])) == ["Output/generator.safetensors"]


@pytest.fixture(scope="module")
def served(generators):
    """The page's address, served as main() serves it."""
    blocks, words = app.build(generators)
    _, url, _ = blocks.launch(server_name="127.0.0.1", i18n=words, prevent_thread_lock=True, quiet=True, **app.SERVED)
    yield url
    blocks.close()


@pytest.mark.parametrize("path", ["/etc/passwd", "app.py", "README.md", "../../etc/passwd", "pretrained/celeba64.safetensors"])
def test_no_file_can_be_read_through_it(served, path):
    assert httpx.get(served + "gradio_api/file=" + path, timeout=30).status_code in (403, 404)
    assert httpx.post(served + "gradio_api/upload", files={"files": b"x" * 100}, timeout=30).status_code >= 400


def test_nothing_goes_past_the_queue(served):
    answer = httpx.post(served + "gradio_api/run/faces", json={"data": ["one", 0, 1, 1.0, ""]}, timeout=30)
    assert answer.status_code == 404
    assert httpx.get(served + "monitoring", timeout=30).status_code != 200


def test_fifty_at_once_are_answered_or_refused(served):
    """As browsers ask: a request joins the queue, and then waits for its result. The page stays alive."""
    faces, = (event["id"] for event in httpx.get(served + "config").json()["dependencies"] if event["api_name"] == "faces")

    def visit(number):
        joined = httpx.post(served + "gradio_api/queue/join", timeout=60, json={
            "data": ["one", number, 4, 1.0, ""], "fn_index": faces, "session_hash": f"visitor{number}"})
        if joined.status_code == 503 and "Queue is full" in joined.text:
            return "refused"
        with httpx.stream("GET", served + f"gradio_api/queue/data?session_hash=visitor{number}", timeout=60) as results:
            messages = (json.loads(line[5:]) for line in results.iter_lines() if line.startswith("data:"))
            return next(message["success"] for message in messages if message["msg"] == "process_completed")

    with ThreadPoolExecutor(50) as visitors:
        answers = list(visitors.map(visit, range(50)))
    assert set(answers) <= {True, "refused"} and answers.count(True) >= app.WAITING
    assert visit(50) is True


@pytest.mark.slow
@pytest.mark.parametrize("language, words", [("en-US", "None of these people exists"), ("zh-CN", "这些人都不存在")])
def test_a_visit(served, language, words):
    """Faces, again, the address, two clicks, a walk."""
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome") or pytest.skip("there is no browser")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        visitor = browser.new_page(locale=language)
        visitor.set_default_timeout(60_000)
        visitor.goto(served + "?first=5&count=8")
        visitor.wait_for_selector("#faces img")
        assert words in visitor.content() and len(visitor.query_selector_all("#faces img")) == 8
        visitor.click("#again")
        visitor.wait_for_function("!location.search.includes('first=5&')")
        first = int(visitor.input_value("#first input"))
        visitor.fill("#first input", "1")  # not drawn yet
        assert f"first={first}&" in visitor.url and "count=8" in visitor.url
        for place, end in ((2, "#end"), (5, "#end")):
            visitor.query_selector_all("#faces img")[place].click()
            visitor.wait_for_function(f"document.querySelector('{end} input').value == {first + place}")
        assert visitor.input_value("#start input") == str(first + 2)
        visitor.click("#go")
        visitor.wait_for_selector("#film img")
        browser.close()
