"""Fetches photos: by keyword from an image search, or from a list of addresses.

    python collect.py --keyword 人脸 --num 300          # Baidu's image search → photos/
    python collect.py --keyword face --engine bing
    python collect.py --urls addresses.txt              # an address a line

Stopped or cut off, the same command goes on where it was. Then: python pretreat.py --input photos --crop face
"""
import runtime  # noqa: I001  (first, as in every script)

import hashlib
import io
import ipaddress
import json
import logging
import threading
import time
import warnings
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import numpy as np
from PIL import Image
from tqdm import tqdm

from files import claim, replacing
from photos import open_picture, reason
from runtime import UserError

try:
    import urllib3
except ImportError:
    raise SystemExit("collect.py needs packages that are not installed; type: pip install -r requirements-photos.txt") from None

CAUTION = """Photos on the web belong to those who made them, and faces to those who wear them, who have not agreed to this.
Use what you collect for your own study, do not publish it, and ask before you train anything on it that others will see."""
LOG = "collected.jsonl"
REDIRECTS = 5
TIMEOUT = urllib3.Timeout(connect=10, read=10)  # seconds for each answer of a server
MOST_SECONDS = 60  # for a whole picture
MOST_BYTES = 20 * 2**20  # of a picture
ATTEMPTS = 3
ALIKE = 16  # bits of `looks` in which copies differ at most
PAUSE = 0.5  # seconds between two requests to the same host
MOST_FOUND = 1000  # what the searches give for a keyword
HEADERS = {"User-Agent": "Mozilla/5.0 (compatible; photo collector for study)", "Accept": "image/*"}


class Refused(Exception):
    """A picture that is not to be had, however often one asks; the message says why."""


class PublicOnly:
    """A connection that lets go, before it has sent anything, of a host in a private network: of one's router, say."""

    def _new_conn(self):
        connection = super()._new_conn()
        address = ipaddress.ip_address(connection.getpeername()[0].partition("%")[0])
        if not address.is_global or address.is_multicast:
            connection.close()
            raise Refused("leads to a private address")
        return connection


class PublicHTTPPool(urllib3.HTTPConnectionPool):
    """Connections of PublicOnly."""

    ConnectionCls = type("PublicHTTPConnection", (PublicOnly, urllib3.HTTPConnectionPool.ConnectionCls), {})


class PublicHTTPSPool(urllib3.HTTPSConnectionPool):
    """Connections of PublicOnly."""

    ConnectionCls = type("PublicHTTPSConnection", (PublicOnly, urllib3.HTTPSConnectionPool.ConnectionCls), {})


class Fetcher:
    """Fetches pictures from servers that may be slow, broken or hostile.

    trusted  whether the addresses themselves may be of a private network, as those that a user wrote down; what they lead on
             to never may, but for the same host and port
    """

    def __init__(self, trusted):
        self.trusted = trusted
        self.anywhere, self.public = (urllib3.PoolManager(maxsize=64) for _ in range(2))
        self.public.pool_classes_by_scheme = {"http": PublicHTTPPool, "https": PublicHTTPSPool}
        self.lock, self.free_at = threading.Lock(), {}

    def fetch(self, url):
        """The bytes at `url`. Raises Refused, or OSError and urllib3's errors where another attempt may work."""
        start, home = time.monotonic(), place(url) if self.trusted else None
        for _ in range(REDIRECTS + 1):
            pool = self.anywhere if place(url) == home else self.public
            self.await_turn(place(url))
            with pool.request("GET", url, headers=HEADERS, timeout=TIMEOUT, redirect=False, retries=False,
                              preload_content=False) as answer:
                target = answer.get_redirect_location()
                if not target:
                    return read(answer, start)
            url = urljoin(url, target)
        raise Refused("sent on and on")

    def await_turn(self, host):
        """Waits so that a host is asked no more often than once in PAUSE seconds."""
        with self.lock:
            turn = max(time.monotonic(), self.free_at.get(host, 0))
            self.free_at[host] = turn + PAUSE
        time.sleep(max(0, turn - time.monotonic()))


def place(url):
    """Scheme, host and port of an address. Raises Refused for what is not a web address."""
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname:
            return parts.scheme, parts.hostname, parts.port
    except ValueError:
        pass
    raise Refused("not a web address")


def read(answer, start):
    """The body of an answer, as long as it is no larger and takes no longer than a picture."""
    if answer.status >= 500:
        raise OSError(f"status {answer.status}")
    if answer.status != 200:
        raise Refused(f"status {answer.status}")
    content = bytearray()
    while block := answer.read1(2 ** 16):  # what has come, however little
        content += block
        if len(content) > MOST_BYTES:
            raise Refused(f"larger than {MOST_BYTES >> 20} MiB")
        if time.monotonic() - start > MOST_SECONDS:
            raise Refused(f"took longer than {MOST_SECONDS} s")
    return bytes(content)


def looks(image):
    """How a picture looks, nearly the same for copies in other sizes and formats: where it gets brighter on a grid, 256 bits."""
    grey = np.asarray(image.convert("L").resize((17, 16), Image.Resampling.BOX)).astype(int)
    return np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes().hex()


def is_known(look, known):
    """Whether a picture that looks so is a copy of one of those known: other pictures differ in about half of the bits."""
    return any(bin(int(look, 16) ^ int(other, 16)).count("1") <= ALIKE for other in known)


def obtain(fetcher, url):
    """Fetches one picture: what to log about it, and its bytes, or None where it is not kept.

    The log has "url", and "looks" and "file", a name made from its bytes, or "reason"; "again" where the next run may try again.
    """
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE * 2 ** attempt)
        try:
            content = fetcher.fetch(url)
            image, _, _ = open_picture(content)
            kind = Image.open(io.BytesIO(content)).format.lower()
            name = f"{hashlib.sha256(content).hexdigest()[:16]}.{'jpg' if kind in ('jpeg', 'mpo') else kind}"
            return {"url": url, "file": name, "looks": looks(image)}, content
        except Refused as error:
            return {"url": url, "reason": str(error)}, None
        except (OSError, urllib3.exceptions.HTTPError) as error:
            if isinstance(error, Image.UnidentifiedImageError):
                return {"url": url, "reason": "not a picture"}, None
            last = error
        except Exception as error:  # whatever a broken file makes a decoder say
            return {"url": url, "reason": reason(error)}, None
    return {"url": url, "reason": f"no answer ({type(last).__name__})", "again": True}, None


def read_log(folder):
    """What earlier runs wrote: the addresses that are done, and the looks of the pictures that are still there."""
    done, known = set(), set()
    path = folder / LOG
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            entry = json.loads(line)
            here = "file" in entry and (folder / entry["file"]).exists()
        except (ValueError, TypeError):  # cut off
            continue
        if here or "file" not in entry and "again" not in entry:
            done.add(entry["url"])
        if here:
            known.add(entry["looks"])
    return done, known


def collect(urls, folder, wanted, fetcher, workers):
    """Fetches from `urls` into `folder` until it holds `wanted` pictures. Returns how many it has, and why others are not kept."""
    done, known = read_log(folder)
    with open(folder / LOG, "a+b") as log:  # a line that was cut off must not take the next one with it
        log.seek(max(0, log.tell() - 1))
        if log.read() not in (b"", b"\n"):
            log.write(b"\n")
    urls = iter([url for url in dict.fromkeys(urls) if url not in done])
    reasons, coming = Counter(), set()
    with (open(folder / LOG, "a", encoding="utf-8") as log, ThreadPoolExecutor(workers) as threads,
          tqdm(total=wanted, initial=len(known), unit="photo", disable=None) as bar):
        try:
            while len(known) < wanted:
                coming |= {threads.submit(obtain, fetcher, url) for _, url in zip(range(workers - len(coming)), urls)}
                if not coming:
                    break
                ready, coming = wait(coming, return_when=FIRST_COMPLETED)
                for entry, content in (task.result() for task in ready):
                    if len(known) >= wanted:  # as good as not asked for
                        break
                    if content and is_known(entry["looks"], known):
                        entry, content = {"url": entry["url"], "reason": "there already"}, None
                    if content:
                        with replacing(folder / entry["file"], durable=False) as temporary:
                            temporary.write_bytes(content)
                        known.add(entry["looks"])
                        bar.update()
                    else:
                        reasons[entry["reason"]] += 1
                    log.write(json.dumps(entry, ensure_ascii=False) + "\n")
                    log.flush()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
    return len(known), reasons


def search(keyword, engine, most):
    """The addresses of photos that an image search finds, `most` at most. Raises UserError where the package is missing."""
    try:
        from icrawler import Downloader
        from icrawler.builtin import BaiduImageCrawler, BingImageCrawler
    except ImportError as error:
        raise UserError(f"--keyword needs a package that is not installed ({error}); type: "
                        "pip install -r requirements-photos.txt") from None
    found = []

    class Finder(Downloader):
        """Takes note of an address; fetching it is ours."""

        def download(self, task, *_, **__):
            found.append(task["file_url"])
            self.signal.set(reach_max_num=len(found) >= most)

    crawler = {"baidu": BaiduImageCrawler, "bing": BingImageCrawler}[engine]
    crawler(downloader_cls=Finder, log_level=logging.CRITICAL).crawl(keyword, max_num=most)
    return found[:most]


def read_addresses(path):
    """The addresses in a text file, one a line; empty lines and those that begin with # are passed over."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        raise UserError(f"--urls {path}: cannot be read ({getattr(error, 'strerror', None) or 'not a UTF-8 text'})") from None
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def main():
    """The command: reads its options, finds addresses, and fetches what they lead to."""
    parser = runtime.Parser(__doc__)
    add = parser.add_argument
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--keyword", help="what to search for")
    which.add_argument("--urls", metavar="FILE", help="a text file of addresses, one a line")
    add("--engine", choices=("baidu", "bing"), default="baidu", help="(default: baidu)")
    add("--num", type=runtime.number(int, 1), default=200, help="how many photos the folder is to have (default: 200)")
    add("--out", type=Path, default=Path("photos"), metavar="DIR", help="(default: photos)")
    add("--workers", type=runtime.number(int, 1, 64), default=8, help="how many at a time (default: 8)")
    options = parser.parse_args()
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # such a picture is not kept

    print(CAUTION)
    if options.urls:
        urls = read_addresses(options.urls)
    else:
        urls = search(options.keyword, options.engine, min(MOST_FOUND, 3 * options.num))
        print(f"{len(urls)} photos of {options.keyword} found by {options.engine}")
    options.out.mkdir(parents=True, exist_ok=True)
    with claim(options.out):
        count, reasons = collect(urls, options.out, options.num, Fetcher(trusted=bool(options.urls)), options.workers)
    if reasons:
        print("not kept: " + ", ".join(f"{number} ({why})" for why, number in reasons.most_common()))
    if not count:
        raise UserError("no photo came; " + ("see above why" if urls else "try another keyword or --engine"), status=1)
    missing = f"; {options.num} were asked for, but there are no more" if count < options.num else ""
    print(f"{count} photos in {options.out}{missing}\nnext: python pretreat.py --input {options.out} --crop face")


if __name__ == "__main__":
    runtime.run_command(main)
