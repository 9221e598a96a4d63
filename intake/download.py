"""Fetching one large file: with a progress bar, resumed where it broke off, and checked before it gets its name."""
from support.cli import UserError, printable

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from tqdm import tqdm

from support.files import claim

ATTEMPTS, PAUSE = 5, 2  # connections in a row that bring nothing; seconds before the next
BLOCK = 2 ** 16


def fetch(url, path, kind, digest, otherwise):
    """Fetches `url` to `path` and checks its `digest`, of a `kind` that hashlib has.

    A part of the file is kept in .part-NAME beside it; the next call resumes it. Raises UserError where the download fails;
    `otherwise` is what the sentence advises then.
    """
    try:
        on_the_web = urlsplit(url).scheme in ("http", "https") and urlsplit(url).hostname
    except ValueError:
        on_the_web = False
    if not on_the_web:
        raise UserError(f"{printable(url)}: not a web address; expected http://… or https://…")
    part = Path(path).with_name(f".part-{Path(path).name}")
    part.parent.mkdir(parents=True, exist_ok=True)
    with claim(part.parent.resolve(), hint="wait for it, then type the same command again"):
        receive_all(url, part, otherwise)
        if digest_of(part, kind) != digest:
            part.unlink()
            raise UserError(f"{printable(url)}: the file that came is another one than {Path(path).name} or damaged, and was "
                            f"deleted; try again, or {otherwise}", status=1)
        os.replace(part, path)


def receive_all(url, part, otherwise):
    """Fetches the rest of `part`. After a connection that broke off it resumes, unless ATTEMPTS in a row brought nothing."""
    failures = 0
    while True:
        had = part.stat().st_size if part.exists() else 0
        try:
            if receive(url, part, had):
                return
            error = "the connection broke off"
        except urllib.error.HTTPError as answer:
            error = f"{answer.code} {answer.reason}"
            failures = ATTEMPTS if answer.code < 500 else failures  # another attempt would get the same answer
        except (OSError, http.client.HTTPException, ValueError) as problem:  # ValueError: redirected to an invalid address
            error = problem
        failures = failures + 1 if not part.exists() or part.stat().st_size <= had else 0
        if failures >= ATTEMPTS:
            kept = "the part that came is kept, and the same command resumes it" if part.exists() else "try again"
            name = part.name.removeprefix(".part-")
            raise UserError(f"the download of {name} failed ({printable(error)}); {kept}, or {otherwise}", status=1)
        time.sleep(PAUSE)


def receive(url, part, had):
    """Appends the rest of the file to `part`, which has `had` bytes. Returns whether the file is complete.

    Raises OSError where the server sends a web page, or a smaller file: neither may replace the part.
    """
    request = urllib.request.Request(url, headers={"Range": f"bytes={had}-"} if had else {})
    try:
        answer = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # there are no more bytes
            return True
        raise
    with answer:
        if answer.headers.get_content_type() == "text/html":
            raise OSError("a page came in its place")
        if answer.status != 206:  # the whole file, from its beginning
            if answer.length is not None and answer.length < had:
                raise OSError("a smaller file came in its place")
            had = 0
        total = had + answer.length if answer.length is not None else None
        name = part.name.removeprefix(".part-")
        with (open(part, "ab" if had else "wb") as file,
              tqdm(total=total, initial=had, desc=name, unit="B", unit_scale=True, disable=None) as bar):
            while block := answer.read1(BLOCK):  # read() would take any number of bytes at once for a chunk of -1 bytes
                file.write(block)
                bar.update(len(block))
            return total is None or file.tell() >= total


def digest_of(path, kind):
    """The hexadecimal digest of a file of any size."""
    digest = hashlib.new(kind)
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
