"""Collecting photos, from a server on loopback that misbehaves in every way."""
import base64
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import collect
from hostile_server import AVIF, photo


@pytest.fixture
def gather(web, command, tmp_path):
    """gather("a", "b") collects from these paths of the server into tmp_path/photos."""

    def gather(*names, num=50):
        (tmp_path / "urls.txt").write_text("# photos\n" + "\n".join(
            name if ":" in name else f"{web.url}/{name}" for name in names) + "\n")
        return command(collect, "--urls", tmp_path / "urls.txt", "--num", num, "--out", tmp_path / "photos")

    return gather


def pictures(folder):
    return {path.name for path in folder.iterdir() if path.suffix != ".jsonl"}


def test_good_pictures_are_kept_and_others_counted_by_reason(gather, web, tmp_path):
    result = gather("one", "two", "flaky", "short", "garbled", "to-three", "missing", "page.jpg", "drawing", "half", "endless",
                    "endless-chunk", "slow", "undecided", "to-loop", "to-slow-loop", "to-private", "to-crafted",
                    "to-broken", "ftp://127.0.0.1:21/x.jpg", "http://[broken/", "http://a..b/", "http://127.0.0.1:9/nobody.jpg")
    assert result.status == 0 and "7 photos" in result.out and "have not agreed" in result.out and "--crop face" in result.out
    for reason in ("1 (status 404)", "2 (not a picture", "2 (larger than 20 MiB)", "3 (took longer", "1 (more than 5 redirects)",
                   "1 (a private address)", "4 (not a web address)", "1 (no answer"):
        assert reason in result.out, reason
    assert len(pictures(tmp_path / "photos")) == 7 and web.router.connections == 0
    for name in pictures(tmp_path / "photos"):
        assert name.endswith(".jpg") and Image.open(tmp_path / "photos" / name).format == "JPEG"


def test_copies_in_other_sizes_and_formats_are_kept_once(gather, tmp_path):
    result = gather("a", "same", "again/a", "b")  # "same" is larger, and a .png
    assert result.status == 0 and len(pictures(tmp_path / "photos")) == 2 and "2 (a copy)" in result.out


def test_no_name_leads_out_of_the_folder(gather, tmp_path):
    before = {path.name for path in tmp_path.iterdir()}
    gather("../../evil.jpg", "..%2f..%2fevil.png", "a%00b", "x" * 300)
    assert {path.name for path in tmp_path.iterdir()} == before | {"urls.txt", "photos"}
    assert len(pictures(tmp_path / "photos")) == 4 and all(len(name) == 20 for name in pictures(tmp_path / "photos"))


def test_the_same_command_resumes(gather, web, tmp_path):
    gather("a", "b", "missing", "c", num=2)
    assert len(pictures(tmp_path / "photos")) == 2
    done = {json.loads(line)["url"] for line in (tmp_path / "photos" / "collected.jsonl").read_text().splitlines()}
    with open(tmp_path / "photos" / "collected.jsonl", "ab") as log:
        log.write('{"url": "http://人'.encode()[:-1])  # cut off within a character
    deleted = sorted(pictures(tmp_path / "photos"))[0]
    (tmp_path / "photos" / deleted).unlink()  # weeded out: it is not to come back
    asked = len(web.asked)
    result = gather("a", "b", "missing", "c", "d", num=4)
    assert result.status == 0 and len(pictures(tmp_path / "photos")) == 3 and deleted not in pictures(tmp_path / "photos")
    assert not {web.url + path for path in web.asked[asked:]} & done
    lines = (tmp_path / "photos" / "collected.jsonl").read_text(errors="replace").splitlines()
    assert sum("file" in json.loads(line) for line in lines if line.endswith("}")) == 4


def test_a_reason_is_printed_without_control_characters(gather, monkeypatch):
    def examine(_):
        raise ValueError("cut\x1b[2J short\r")

    monkeypatch.setattr(collect, "examine", examine)
    assert r"1 (cut\x1b[2J short)" in gather("a").out


@pytest.mark.skipif(not AVIF, reason="this Pillow has no AVIF")
def test_avif_is_kept(gather, tmp_path):
    assert gather("avif").status == 0
    assert [Path(name).suffix for name in pictures(tmp_path / "photos")] == [".avif"]


def test_a_log_that_is_damaged_or_hostile_does_no_harm(gather, web, tmp_path):
    looks = base64.b64encode(bytes(768)).decode()
    (tmp_path / "photos").mkdir()
    for name in ("outside.jpg", "photos/0123456789abcdef.jpg", "photos/0123456789abcdee.jpg"):
        (tmp_path / name).write_bytes(photo(0))
    lines = [{"url": f"{web.url}/a", "file": name, "looks": looks} for name in (
        "../outside.jpg", str(tmp_path / "outside.jpg"), "..", "", "a\0b", "\ud800", None, 7, ["x"], {"x": 1}, "x" * 5000)]
    lines += [{"url": url, "file": "0123456789abcdee.jpg", "looks": looks} for url in ("x", "y", ["z"])]  # one picture
    lines += [{"url": f"{web.url}/a", "file": "0123456789abcdef.jpg", "looks": wrong} for wrong in (None, 7, "", "ä", looks[4:])]
    lines += [None, 5, "url", [], ["url"], {}, {"url": None}, {"file": "x"}, {"url": {}, "reason": 1}, {"url": float("inf")}]
    log = [json.dumps(line) for line in lines] + ["[" * 100_000, "9" * 10_000, "1e999", '{"url": 1e999}', "\0"]
    (tmp_path / "photos" / "collected.jsonl").write_text("\n".join(log))
    result = gather("a", num=2)
    assert result.status == 0 and result.err == "" and "2 photos" in result.out and web.asked == ["/a"]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no Ctrl-C to send")
def test_ctrl_c_does_not_wait_and_keeps_the_photos(web, tmp_path):
    """It waits neither for a slow server nor for a decoder that never ends."""
    (tmp_path / "urls.txt").write_text("".join(f"{web.url}/{name}\n" for name in ("one", "slow", "undecided", "stuck", "two")))
    program = ("import collect, signal, threading; from support.cli import run_command\n"
               "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # jobs in the background ignore it
               "examine = collect.examine\n"
               f"stuck = {photo(sum(b'stuck'))!r}\n"
               "collect.examine = lambda content: threading.Event().wait() if content == stuck else examine(content)\n"
               "run_command(collect.main)\n")
    process = subprocess.Popen([sys.executable, "-c", program, "--urls", tmp_path / "urls.txt", "--out", tmp_path / "photos"],
                               cwd=Path(collect.__file__).parent, stderr=subprocess.PIPE, text=True)
    try:
        log = tmp_path / "photos" / "collected.jsonl"
        while process.poll() is None and not (log.exists() and log.read_text().count("\n") == 2 and len(web.asked) == 5):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    finally:
        process.kill()
    assert process.returncode == 130 and "interrupted" in errors and "Traceback" not in errors
    assert len(pictures(tmp_path / "photos")) == 2 and "".join(errors.splitlines()[-1:]).isprintable()


def test_a_keyword_is_searched_for(command, tmp_path, monkeypatch):
    """Baidu's answer, in its own encoding of addresses."""
    pytest.importorskip("icrawler")
    import requests

    asked = []

    def get(self, url, **_):
        asked.append(url)
        data = [{"hoverURL": f"http://127.0.0.1/{len(asked)}-{i}.jpg"} for i in range(30)]
        return type("Answer", (), {"content": json.dumps({"data": data}).encode()})()

    monkeypatch.setattr(requests.Session, "get", get)
    numbers = np.random.default_rng(0)
    monkeypatch.setattr(collect, "obtain", lambda fetcher, url: (
        {"url": url, "file": url.rpartition("/")[2], "looks": ""}, numbers.integers(0, 256, (16, 16, 3)), photo(0)))
    result = command(collect, "--keyword", "人脸", "--num", 15, "--out", tmp_path / "photos")
    assert result.status == 0 and "人脸" in asked[0] and "45 photos" in result.out and len(pictures(tmp_path / "photos")) == 15


def test_bad_input_gets_a_sentence(command, tmp_path):
    result = command(collect, "--urls", tmp_path / "missing.txt", "--out", tmp_path / "photos")
    assert result.status == 2 and "missing.txt" in result.err
    assert command(collect).status == 2
    (tmp_path / "empty.txt").touch()
    result = command(collect, "--urls", tmp_path / "empty.txt", "--out", tmp_path / "photos")
    assert result.status == 1 and "no photo was kept" in result.err
