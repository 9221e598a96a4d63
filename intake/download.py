"""Fetching one large file: with a bar, resuming where it broke off, and checked before it takes its place."""
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

ATTEMPTS, PAUSE = 5, 2  # how often a connection may break off before anything came; seconds before the next
BLOCK = 2 ** 16


def fetch(url, path, kind, digest, otherwise):
    """Fetches `url` to `path`, whose digest of a `kind` that hashlib knows must be as given.

    What has come so far lies in .part-NAME beside it; the next call goes on from there. `otherwise` says what to do where it
    does not work. Raises UserError then.
    """
    try:
        on_the_web = urlsplit(url).scheme in ("http", "https") and urlsplit(url).hostname
    except ValueError:
        on_the_web = False
    if not on_the_web:
        raise UserError(f"{printable(url)}: not an address on the web; expected http://… or https://…")
    part = Path(path).with_name(f".part-{Path(path).name}")
    part.parent.mkdir(parents=True, exist_ok=True)
    with claim(part.parent):
        receive_all(url, part, otherwise)
        if digest_of(part, kind) != digest:
            part.unlink()
            raise UserError(f"{printable(url)}: gave another file than {Path(path).name} or a damaged one, which was deleted; "
                            f"try again, or {otherwise}", status=1)
        os.replace(part, path)


def receive_all(url, part, otherwise):
    """Fetches what `part` still lacks, however often the connection breaks off, as long as something comes."""
    failures = 0
    while True:
        had = part.stat().st_size if part.exists() else 0
        try:
            if receive(url, part, had):
                return
            error = "the connection broke off"
        except urllib.error.HTTPError as answer:
            error = f"{answer.code} {answer.reason}"
            failures = ATTEMPTS if answer.code < 500 else failures  # no use in asking again
        except (OSError, http.client.HTTPException, ValueError) as problem:  # ValueError: sent on to what is no address
            error = problem
        failures = failures + 1 if not part.exists() or part.stat().st_size <= had else 0
        if failures >= ATTEMPTS:
            kept = "what has come is kept, and the same command goes on from there" if part.exists() else "try again"
            name = part.name.removeprefix(".part-")
            raise UserError(f"the download of {name} failed ({printable(error)}); {kept}, or {otherwise}", status=1)
        time.sleep(PAUSE)


def receive(url, part, had):
    """Appends to `part`, which has `had` bytes, what the server has beyond them. Returns whether that is all of it.

    Raises OSError where it sends a page for people, or less than there is already: that must not take the part's place.
    """
    request = urllib.request.Request(url, headers={"Range": f"bytes={had}-"} if had else {})
    try:
        answer = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # there is nothing beyond
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
            while block := answer.read1(BLOCK):  # read() takes all at once where the server says that a chunk has -1 bytes
                file.write(block)
                bar.update(len(block))
            return total is None or file.tell() >= total


def digest_of(path, kind):
    """The hexadecimal digest of a file, however large."""
    digest = hashlib.new(kind)
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
