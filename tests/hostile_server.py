"""A server on loopback that misbehaves in every way."""
import http.server
import io
import threading
import time
from contextlib import contextmanager

import numpy as np
from PIL import Image, features

import collect
from intake import web as web_module


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


@contextmanager
def listening(monkeypatch):
    """A server: server.url is where a Handler listens; server.other, on another port, stands for one's router.

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
    monkeypatch.setattr(web_module, "MAX_SECONDS", 1)
    yield servers[0]
    for server in servers:
        server.shutdown()
        server.server_close()
