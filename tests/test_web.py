"""Fetching from a server on loopback that misbehaves in every way."""
import shutil
import socket
import ssl
import subprocess
import time

import pytest

from hostile_server import Handler, photo
from intake import web as web_module


def test_a_compressed_answer_is_not_unpacked(web, monkeypatch):
    """A few bytes that would become gigabytes."""
    import gzip

    bomb = gzip.compress(bytes(50_000_000))
    monkeypatch.setattr(web_module, "HEADERS", {})
    monkeypatch.setattr(Handler, "do_GET", lambda self: (self.send_response(200), self.send_header("Content-Encoding", "gzip"),
                                                         self.end_headers(), self.wfile.write(bomb)))
    assert web_module.Fetcher(trusted=True).fetch(web.url + "/bomb") == bomb


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
            web_module.Fetcher(trusted=False).fetch(f"http://{host}:{web.server_port}/one")
    web_module.Fetcher(trusted=True).fetch(f"http://photos.test:{web.server_port}/two")  # a user may
    assert web.asked == ["/two"] and web.connections == 1


def test_a_name_is_looked_up_once_and_its_public_addresses_are_tried_in_turn(web, names, monkeypatch):
    """A second look-up could lead into the private network."""
    monkeypatch.setattr(web_module, "is_public", lambda address: address == "127.0.0.1")
    names["photos.test"] = [[("10.0.0.1", 9), ("127.0.0.1", 9), ("127.0.0.1", web.server_port)],
                            [("127.0.0.1", web.router.server_port)], [("127.0.0.1", web.router.server_port)]]
    assert web_module.Fetcher(trusted=False).fetch("http://photos.test/to-one") == photo(sum(b"one"))
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
    fetcher = web_module.Fetcher(trusted=True)
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
    assert web_module.Fetcher(trusted=True).fetch(f"{web.url}/to-one") == photo(sum(b"one"))
    assert time.monotonic() - start >= 1.2
