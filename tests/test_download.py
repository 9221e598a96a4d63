"""Large downloads, from a server on loopback that also misbehaves."""
from support.cli import UserError

import hashlib

import pytest

from intake import download
from intake.download import fetch
from support import files

CONTENT = bytes(range(256)) * 1000


@pytest.fixture
def get(server, tmp_path, monkeypatch):
    """get() fetches server.content to tmp_path/archive.zip and returns its bytes."""
    monkeypatch.setattr(download, "PAUSE", 0)
    server.content = CONTENT

    def get():
        fetch(server.url + "/archive.zip", tmp_path / "archive.zip", "md5", hashlib.md5(CONTENT).hexdigest(), "fetch it by hand")
        return (tmp_path / "archive.zip").read_bytes()

    return get


def test_a_connection_that_breaks_off_is_resumed(server, get, tmp_path):
    server.breaks = 100_000
    assert get() == CONTENT and server.asked == [None, "bytes=100000-", "bytes=200000-"]
    assert [path.name for path in tmp_path.iterdir()] == ["archive.zip"]


def test_a_part_from_before_is_resumed_by_the_next_call(server, get, tmp_path):
    (tmp_path / ".part-archive.zip").write_bytes(CONTENT[:5000])
    assert get() == CONTENT and server.asked == ["bytes=5000-"]
    (tmp_path / ".part-archive.zip").write_bytes(CONTENT)  # all is there, but it was not checked yet
    assert get() == CONTENT


def test_a_server_that_cannot_resume_starts_again(server, get, tmp_path):
    server.ranges = False
    (tmp_path / ".part-archive.zip").write_bytes(b"x" * 5000)
    assert get() == CONTENT


@pytest.mark.parametrize("changes, words, kept", [
    ({"status": 404}, "404.*try again", 0), ({"status": 503}, "503", 0), ({"breaks": 0}, "broke off", 0),
    ({"content": b"a login page"}, "another one than archive.zip", 0),
    ({"ranges": False, "breaks": 9000}, "broke off.*resumes it", 9000)])
def test_a_failed_download_gets_a_sentence(server, get, tmp_path, changes, words, kept):
    vars(server).update(changes)
    with pytest.raises(UserError, match=f"{words}.*fetch it by hand$") as error:
        get()
    assert error.value.status == 1
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == kept


@pytest.mark.parametrize("changes", [{"kind": "text/html"}, {"ranges": False, "content": b"the quota is used up"}])
def test_a_web_page_does_not_replace_the_part_that_came(server, get, tmp_path, changes):
    (tmp_path / ".part-archive.zip").write_bytes(CONTENT[:5000])
    vars(server).update(changes)
    with pytest.raises(UserError, match="in its place"):
        get()
    assert (tmp_path / ".part-archive.zip").read_bytes() == CONTENT[:5000]


@pytest.mark.parametrize("answer, words", [
    (b"HTTP/1.1 404 \x1b[2Jgone\r\n\r\n", r"404 \\x1b\[2Jgone"), (b"\x1b[2J\r\n", r"\\x1b\[2J"),
    (b"HTTP/1.1 302 Found\r\nLocation: http://[x/\r\n\r\n", "failed")])
def test_a_hostile_server_gets_a_sentence_that_leaves_the_terminal_alone(server, get, monkeypatch, answer, words):
    monkeypatch.setattr(server.RequestHandlerClass, "do_GET", lambda self: self.wfile.write(answer))
    with pytest.raises(UserError, match=words) as error:
        get()
    assert str(error.value).isprintable()


@pytest.mark.parametrize("url", ["file:///etc/passwd", "archive.zip", "https://", "http://[broken/"])
def test_an_invalid_address(tmp_path, url):
    with pytest.raises(UserError, match="not a web address") as error:
        fetch(url, tmp_path / "archive.zip", "md5", "0", "fetch it by hand")
    assert error.value.status == 2


def test_a_server_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0)
    with pytest.raises(UserError, match="refused"):
        fetch("http://127.0.0.1:9/archive.zip", tmp_path / "archive.zip", "md5", "0", "fetch it by hand")


def test_two_downloads_at_once_are_told_what_to_do(get, tmp_path):
    """There is no --out here that could be another."""
    with files.claim(tmp_path), pytest.raises(UserError, match="another command is writing there; wait for it") as error:
        get()
    assert str(tmp_path) in str(error.value) and "--out" not in str(error.value)
    assert get() == CONTENT
