"""Collecting photos, from a server on loopback that misbehaves in every way."""
import base64
import http.server
import io
import json
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

import collect
import web as web_module


def photo(number, kind="jpeg", side=160):
    """A portrait before a white wall, in any size and format: most of it is the same for all numbers."""
    coarse = np.random.default_rng(number).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    picture = Image.new("RGB", (side, side), "white")
    picture.paste(Image.fromarray(coarse).resize((side // 2, side // 2), Image.Resampling.BICUBIC), (side // 4, side // 4))
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


AVIF = photo(1, "avif") if features.check("avif") else b""


class Handler(http.server.BaseHTTPRequestHandler):
    """What is asked for decides how it misbehaves."""

    def do_GET(self):
        self.server.asked.append(self.path)
        name = self.path.rpartition("/")[2]
        if name.startswith("to-"):
            time.sleep(0.3 if name == "to-slow-loop" else 0)
            self.send_response(302)
            self.send_header("Location", {"to-private": self.server.other, "to-crafted": self.server.crafted,
                                          "to-loop": "/to-loop", "to-slow-loop": "/to-slow-loop",
                                          "to-broken": "http://[x/"}.get(name, "/" + name[3:]))
            self.end_headers()
        elif name == "missing":
            self.send_error(404)
        elif name == "flaky" and self.server.asked.count(self.path) < 3:
            self.send_error(429 if self.server.asked.count(self.path) == 1 else 503)
        elif name == "garbled" and self.server.asked.count(self.path) < 2:
            self.wfile.write(b"nonsense\r\n\r\n")
        elif name == "undecided":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            self.dribble()
        else:
            self.send_response(200)
            if name == "short":
                self.send_header("Content-Length", str(len(photo(3))))
            if name == "endless-chunk":
                self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()  # no length: the connection's end is the end
            try:
                if name == "endless-chunk":
                    self.wfile.write(b"-1\r\n")
                while name.startswith("endless"):
                    self.wfile.write(bytes(2 ** 16))
                if name == "slow":
                    self.dribble()
                self.wfile.write({"page.jpg": b"<html>Log in</html>",
                                  "drawing": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
                                  "half": photo(5, "png")[:500], "same": photo(97, "png", 320), "avif": AVIF,
                                  "short": photo(3)[:9 if self.server.asked.count(self.path) < 2 else None]}.get(name)
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
    """web.url is where a Handler listens; web.other, on another port, stands for one's router.

    asked        the paths that it was asked for
    connections  how many it got
    """
    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
    for server in servers:
        server.url, server.asked, server.connections = f"http://127.0.0.1:{server.server_port}", [], 0
        server.verify_request = lambda *_, server=server: vars(server).update(connections=server.connections + 1) or True
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
    result = gather("one", "two", "flaky", "short", "garbled", "to-three", "missing", "page.jpg", "drawing", "half", "endless",
                    "endless-chunk", "slow", "undecided", "to-loop", "to-slow-loop", "to-private", "to-crafted",
                    "to-broken", "ftp://127.0.0.1:21/x.jpg", "http://[broken/", "http://a..b/", "http://127.0.0.1:9/nobody.jpg")
    assert result.status == 0 and "7 photos" in result.out and "belong to" in result.out and "--crop face" in result.out
    for reason in ("1 (status 404)", "2 (not a picture", "2 (larger than 20 MiB)", "3 (took longer", "1 (sent on and on)",
                   "1 (leads to a private address)", "4 (not a web address)", "1 (no answer"):
        assert reason in result.out, reason
    assert len(pictures(tmp_path / "photos")) == 7 and web.router.connections == 0
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


def test_a_reason_cannot_steer_the_terminal(gather, monkeypatch):
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
def test_ctrl_c_waits_for_nobody_and_keeps_what_came(web, tmp_path):
    """Neither for a server that says a byte now and then, nor for a decoder that never ends."""
    (tmp_path / "urls.txt").write_text("".join(f"{web.url}/{name}\n" for name in ("one", "slow", "undecided", "stuck", "two")))
    program = ("import collect, runtime, signal, threading\n"
               "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # jobs in the background ignore it
               "examine = collect.examine\n"
               f"stuck = {photo(sum(b'stuck'))!r}\n"
               "collect.examine = lambda content: threading.Event().wait() if content == stuck else examine(content)\n"
               "runtime.run_command(collect.main)\n")
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


@pytest.fixture
def names(monkeypatch):
    """names["photos.test"] = [[(address, port), …], …]: what looking the name up gives the first time, the second, …"""
    found, really = {}, socket.getaddrinfo

    def look_up(host, port, *others, **more):
        if host not in found:
            return really(host, port, *others, **more)
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", place) for place in found[host].pop(0)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return found


def test_a_private_address_is_not_even_connected_to(web, names):
    names["photos.test"] = [[("127.0.0.1", web.server_port)]] * 2
    for host in ("photos.test", "localhost.", "127.0.0.1", "127.1", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]"):
        with pytest.raises(web_module.Refused, match="private"):
            collect.Fetcher(trusted=False).fetch(f"http://{host}:{web.server_port}/one")
    collect.Fetcher(trusted=True).fetch(f"http://photos.test:{web.server_port}/two")  # a user may
    assert web.asked == ["/two"] and web.connections == 1


def test_a_name_is_looked_up_once_and_its_public_addresses_are_tried_in_turn(web, names, monkeypatch):
    """A second look-up could lead into the private network."""
    monkeypatch.setattr(web_module, "is_public", lambda address: address == "127.0.0.1")
    names["photos.test"] = [[("10.0.0.1", 9), ("127.0.0.1", 9), ("127.0.0.1", web.server_port)],
                            [("127.0.0.1", web.router.server_port)], [("127.0.0.1", web.router.server_port)]]
    assert collect.Fetcher(trusted=False).fetch("http://photos.test/to-one") == photo(sum(b"one"))
    assert web.asked == ["/to-one", "/one"] and web.router.connections == 0


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificate")
def test_a_certificate_is_checked_against_the_name(web, names, tmp_path, monkeypatch):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-keyout", tmp_path / "key.pem",
                    "-out", tmp_path / "cert.pem", "-addext", "subjectAltName=DNS:photos.test"], check=True, capture_output=True)
    asked_for, context = [], ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    context.sni_callback = lambda _socket, name, _context: asked_for.append(name)
    web.socket = context.wrap_socket(web.socket, server_side=True)
    names.update({name: [[("127.0.0.1", web.server_port)]] * 2 for name in ("photos.test", "other.test")})
    web_module.TLS.load_verify_locations(tmp_path / "cert.pem")
    fetcher = collect.Fetcher(trusted=True)
    assert fetcher.fetch("https://photos.test./one") == photo(sum(b"one"))
    with pytest.raises(ssl.SSLCertVerificationError):
        fetcher.fetch("https://other.test/one")
    assert asked_for == ["photos.test", "other.test"] and web.asked == ["/one"]
    with pytest.raises(web_module.Refused, match="took longer"):
        fetcher.fetch("https://photos.test/slow")


@pytest.mark.parametrize("address, public", [
    *((address, False) for address in (
        "127.0.0.1", "10.1.2.3", "169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "192.0.0.9", "192.88.99.1",
        "224.0.0.1", "0.0.0.0", "::1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001::7f00:1", "fd00:ec2::254",
        "fec0::1", "fe80::1%eth0")),
    *((address, True) for address in ("8.8.8.8", "168.63.129.17", "2606:4700::1"))])
def test_which_addresses_are_public(address, public):
    assert web_module.is_public(address) == public


def test_a_server_is_not_asked_too_often_and_waiting_does_not_count(web, monkeypatch):
    monkeypatch.setattr(web_module, "PAUSE", 1.2)  # more than the second that the fixture leaves for a picture
    start = time.monotonic()
    assert collect.Fetcher(trusted=True).fetch(f"{web.url}/to-one") == photo(sum(b"one"))
    assert time.monotonic() - start >= 1.2


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
