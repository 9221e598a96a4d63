"""Collecting photos, from a server on loopback that misbehaves in every way."""
import http.server
import io
import json
import threading
import time

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("urllib3", reason="requirements-photos.txt is not installed")
import collect  # noqa: E402
import web as web_module  # noqa: E402


def photo(number, kind="jpeg", side=160):
    """A portrait before a white wall, in any size and format: most of it is the same for all numbers."""
    coarse = np.random.default_rng(number).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    picture = Image.new("RGB", (side, side), "white")
    picture.paste(Image.fromarray(coarse).resize((side // 2, side // 2), Image.Resampling.BICUBIC), (side // 4, side // 4))
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    """What is asked for decides how it misbehaves."""

    def do_GET(self):
        self.server.asked.append(self.path)
        name = self.path.rpartition("/")[2]
        if name.startswith("to-"):
            self.send_response(302)
            self.send_header("Location", {"to-private": self.server.other, "to-crafted": self.server.crafted,
                                          "to-loop": "/to-loop", "to-broken": "http://[x/"}.get(name, "/" + name[3:]))
            self.end_headers()
        elif name == "missing":
            self.send_error(404)
        elif name == "flaky" and self.server.asked.count(self.path) < 3:
            self.send_error(429 if self.server.asked.count(self.path) == 1 else 503)
        elif name == "undecided":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            self.dribble()
        else:
            self.send_response(200)
            self.end_headers()  # no length: the connection's end is the end
            try:
                while name == "endless":
                    self.wfile.write(bytes(2 ** 16))
                if name == "slow":
                    self.dribble()
                self.wfile.write({"page.jpg": b"<html>Log in</html>",
                                  "drawing": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
                                  "half": photo(5, "png")[:500], "same": photo(97, "png", 320)}.get(name)
                                 or photo(sum(name.encode())))
            except OSError:
                pass

    def dribble(self):
        """A byte now and then, without end."""
        try:
            while True:
                self.wfile.write(b"x")
                time.sleep(0.05)
        except OSError:
            pass

    def log_message(self, *_):
        pass


@pytest.fixture
def web(monkeypatch):
    """web.url is where a Handler listens; web.other, on another port, stands for one's router."""
    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
    for server in servers:
        server.url, server.asked = f"http://127.0.0.1:{server.server_port}", []
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    servers[0].other, servers[0].router = servers[1].url + "/admin", servers[1]
    # where one parser sees the first host, another sees the second
    servers[0].crafted = f"http://127.0.0.1:{servers[1].server_port}\\@127.0.0.1:{servers[0].server_port}/admin"
    monkeypatch.setattr(web_module, "PAUSE", 0)
    monkeypatch.setattr(collect, "PAUSE", 0)
    monkeypatch.setattr(web_module, "MOST_SECONDS", 1)
    yield servers[0]
    for server in servers:
        server.shutdown()
        server.server_close()


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


def test_good_pictures_are_kept_and_the_rest_is_told(gather, web, tmp_path):
    result = gather("one", "two", "flaky", "to-three", "missing", "page.jpg", "drawing", "half", "endless", "slow", "undecided",
                    "to-loop", "to-private", "to-crafted", "to-broken", "ftp://127.0.0.1/x.jpg", "http://[broken/",
                    "http://127.0.0.1:9/nobody.jpg")
    assert result.status == 0 and "4 photos" in result.out and "belong to" in result.out and "--crop face" in result.out
    for reason in ("1 (status 404)", "2 (not a picture", "1 (larger than 20 MiB)", "2 (took longer", "1 (sent on and on)",
                   "2 (leads to a private address)", "3 (not a web address)", "1 (no answer"):
        assert reason in result.out, reason
    assert len(pictures(tmp_path / "photos")) == 4 and web.router.asked == []
    for name in pictures(tmp_path / "photos"):
        assert name.endswith(".jpg") and Image.open(tmp_path / "photos" / name).format == "JPEG"


def test_what_looks_the_same_is_kept_once(gather, tmp_path):
    result = gather("a", "same", "again/a", "b")  # "same" is larger, and a .png
    assert result.status == 0 and len(pictures(tmp_path / "photos")) == 2 and "2 (there already)" in result.out


def test_no_name_leads_out_of_the_folder(gather, tmp_path):
    before = {path.name for path in tmp_path.iterdir()}
    gather("../../evil.jpg", "..%2f..%2fevil.png", "a%00b", "x" * 300)
    assert {path.name for path in tmp_path.iterdir()} == before | {"urls.txt", "photos"}
    assert len(pictures(tmp_path / "photos")) == 4 and all(len(name) == 20 for name in pictures(tmp_path / "photos"))


def test_a_pack_of_nothing_is_not_unpacked(web, monkeypatch):
    """A few bytes that would become gigabytes."""
    import gzip

    bomb = gzip.compress(bytes(50_000_000))
    monkeypatch.setattr(web_module, "HEADERS", {})
    monkeypatch.setattr(Handler, "do_GET", lambda self: (self.send_response(200), self.send_header("Content-Encoding", "gzip"),
                                                         self.end_headers(), self.wfile.write(bomb)))
    assert collect.Fetcher(trusted=True).fetch(web.url + "/bomb") == bomb


def test_the_same_command_goes_on(gather, web, tmp_path):
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


def test_private_addresses_that_a_search_finds_are_not_asked(web, tmp_path):
    entry, _, content = collect.obtain(collect.Fetcher(trusted=False), web.url + "/one")
    assert content is None and "private" in entry["reason"] and web.asked == []


@pytest.mark.parametrize("host, private", [
    ("127.0.0.1", True), ("10.1.2.3", True), ("169.254.169.254", True), ("localhost", True), ("224.0.0.1", True), ("[::1]", True),
    ("::ffff:10.0.0.1", True), ("64:ff9b::7f00:1", True), ("2002:7f00:1::", True), ("fec0::1", True), ("fe80::1%eth0", True),
    ("8.8.8.8", False), ("2606:4700::1", False), ("example.com", False)])
def test_which_addresses_are_private(host, private):
    assert web_module.is_private(host) == private


def test_a_host_is_not_asked_too_often(web, monkeypatch):
    monkeypatch.setattr(web_module, "PAUSE", 0.2)
    fetcher, start = collect.Fetcher(trusted=True), time.monotonic()
    for name in "abc":
        fetcher.fetch(f"{web.url}/{name}")
    assert time.monotonic() - start >= 0.4


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


def test_what_cannot_work_gets_a_sentence(command, tmp_path):
    result = command(collect, "--urls", tmp_path / "missing.txt", "--out", tmp_path / "photos")
    assert result.status == 2 and "missing.txt" in result.err
    assert command(collect).status == 2
    (tmp_path / "empty.txt").touch()
    result = command(collect, "--urls", tmp_path / "empty.txt", "--out", tmp_path / "photos")
    assert result.status == 1 and "no photo" in result.err
