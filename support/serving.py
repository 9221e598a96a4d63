"""Serving the page of app.py: slow connections are closed, and the page is in the language of the browser."""
from support.cli import UserError

import socket

import gradio as gr
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from support.pages import CSS

PATIENCE = 8  # seconds between two checks whether a connection has sent a request
# Gradio has zh-CN and zh-TW alone: zh, zh-Hans, zh-HK and so on become one of them.
CHINESE = b"""<script>{const asked = navigator.language, known = /hant|tw|hk|mo/i.test(asked) ? "zh-TW" : "zh-CN";
if (/^zh/i.test(asked)) Object.defineProperty(navigator, "language", {value: known})}</script>"""


class ImpatientProtocol(H11Protocol):
    """HTTP that closes a connection without a whole request for PATIENCE seconds, or up to twice that.

    So idle connections do not use up those that the system allows.
    """
    def connection_made(self, transport):
        super().connection_made(transport)
        self.loop.call_later(PATIENCE, self.look, None)

    def look(self, last):
        """Closes the connection where no request came since the last check, and none is being answered."""
        answering = self.cycle and not self.cycle.more_body and not self.cycle.response_complete
        if self.cycle is last and not answering:
            self.transport.abort()
        elif not self.transport.is_closing():
            self.loop.call_later(PATIENCE, self.look, self.cycle)


def with_chinese(site):
    """The ASGI application `site`, with the script CHINESE in its page."""

    async def serve(scope, receive, send):
        async def insert(message):
            if "headers" in message:
                message["headers"] = [(name, value) for name, value in message["headers"] if name != b"content-length"]
            if "body" in message:
                message["body"] = message["body"].replace(b"<head>", b"<head>" + CHINESE, 1)
            await send(message)

        await site(scope, receive, insert if scope.get("path") == "/" else send)

    return serve


def build_server(blocks, words, root_path=None):
    """A server of the page: `run(sockets=[…])` starts it, SIGINT or SIGTERM ends it. `root_path` is its path at a proxy."""
    site = gr.mount_gradio_app(FastAPI(openapi_url=None), blocks, "/", i18n=words, css=CSS, footer_links=[], max_file_size="1b",
                               run_history=False, app_kwargs={"openapi_url": None}, enable_monitoring=False, ssr_mode=False,
                               root_path=root_path)
    return uvicorn.Server(uvicorn.Config(with_chinese(site), http=ImpatientProtocol, ws="none", log_level="critical",
                                         timeout_graceful_shutdown=1))


def listen(host, port):
    """A socket that listens at `host`, a name or an address of IPv4 or IPv6. Raises UserError where it cannot."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family)
    except (OSError, UnicodeError) as error:
        reason = str(getattr(error, "strerror", None) or error).split(" (")[0]
        raise UserError(f"--host {host} --port {port}: cannot be listened at; name another ({reason})") from None
