"""Listening, and the language of the page; test_app.py has the tests of the page as it is served."""
from support.cli import UserError

import asyncio

import pytest

pytest.importorskip("gradio", reason="requirements-app.txt is not installed")
from support import serving


def test_addresses_of_ipv6():
    for host in ("::1", "[::1]"):
        try:
            with serving.listen(host, 0) as listener:
                assert listener.getsockname()[0] == "::1"
        except UserError as error:
            pytest.skip(str(error))  # no IPv6 on this machine


def test_the_page_alone_gets_the_script_of_its_languages():
    async def site(scope, receive, send):
        await send({"type": "http.response.start", "headers": [(b"content-length", b"18"), (b"x-other", b"1")]})
        await send({"type": "http.response.body", "body": b"<html><head>a<head>"})

    def answer(path):
        messages = []

        async def send(message):
            messages.append(message)

        asyncio.run(serving.with_chinese(site)({"path": path}, None, send))
        return messages[0]["headers"], messages[1]["body"]

    headers, body = answer("/")
    assert body == b"<html><head>" + serving.CHINESE + b"a<head>" and headers == [(b"x-other", b"1")]  # the length is another now
    assert answer("/config") == ([(b"content-length", b"18"), (b"x-other", b"1")], b"<html><head>a<head>")
