"""Fetches photos: by keyword from an image search, or from a list of addresses.

    python collect.py --keyword 人脸 --num 300          # Baidu's image search → photos/
    python collect.py --keyword face --engine bing
    python collect.py --urls addresses.txt              # an address on each line

After an interruption the same command resumes. Then: python pretreat.py --input photos --crop face
"""
from support.cli import Parser, UserError, number, printable, run_command

import base64
import hashlib
import io
import json
import logging
import re
import time
from collections import Counter
from http.client import HTTPException
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

import numpy as np
from PIL import Image
from tqdm import tqdm

from intake.photos import FORMATS, decoded, reason
from intake.web import PAUSE, Fetcher
from support.files import claim, replacing, sweep

CAUTION = """Photos on the web belong to those who took them, and the people in them have not agreed to this use.
Use the photos for your own study, do not publish them, and ask for permission before others see what you train on them."""
LOG = "collected.jsonl"
ATTEMPTS = 3
ENDINGS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif", "PPM": "ppm", "AVIF": "avif"}
NAME = re.compile(r"[0-9a-f]{16}\.[a-z]+")  # of a picture
COPY_THRESHOLD = 0.03  # difference of thumbnails, as a share of their contrast, up to which they are copies; of others it is 0.07
MAX_FOUND = 1000  # addresses that a search gives for a keyword


def examine(content):
    """The format of a picture and its thumbnail, uint8 [16, 16, 3]. Raises an exception for one that cannot be decoded."""
    kind = Image.open(io.BytesIO(content), formats=[kind for kind in ENDINGS if kind in FORMATS]).format
    with decoded(content, 64) as (image, _, _):
        return kind, np.asarray(image.resize((16, 16), Image.Resampling.BOX))


def is_copy(thumbnail, others):
    """Whether a picture is a copy of one of the others, perhaps in another size or format, by their thumbnails."""
    if not others:
        return False
    one, others = thumbnail.astype(np.float32), np.stack(others).astype(np.float32)
    distances = np.sqrt(((others - one) ** 2).mean(axis=(1, 2, 3)))
    return bool((distances <= COPY_THRESHOLD * np.maximum(1, np.minimum(one.std(), others.std(axis=(1, 2, 3))))).any())


def obtain(fetcher, url):
    """Fetches one picture: its entry for the log, its thumbnail, and its bytes; the last two are None where it is not kept.

    The entry has "url", and "file", a name made from its bytes, or "reason"; also "again" where the next run tries again.
    """
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE * 2 ** attempt)
        try:
            content = fetcher.fetch(url)
            break
        except (OSError, HTTPException) as error:
            last = error
        except Exception as error:  # Refused, or any other, which would end the thread without an entry
            return {"url": url, "reason": reason(error)}, None, None
    else:
        return {"url": url, "reason": f"no answer ({type(last).__name__})", "again": True}, None, None
    try:
        kind, thumbnail = examine(content)
    except Exception as error:  # a decoder may raise any for a damaged file
        return {"url": url, "reason": reason(error)}, None, None
    name = f"{hashlib.sha256(content).hexdigest()[:16]}.{ENDINGS.get(kind, 'jpg')}"  # MPO is a kind of JPEG
    return {"url": url, "file": name, "looks": base64.b64encode(thumbnail.tobytes()).decode()}, thumbnail, content


def read_log(folder):
    """The addresses that earlier runs have done, and the thumbnails of their pictures that are still in the folder.

    A picture that the user has deleted counts as done: it is not fetched again.
    """
    done, thumbnails = set(), {}
    path = folder / LOG
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []:
        try:
            entry = json.loads(line)
            if "file" in entry:
                if not NAME.fullmatch(entry["file"]):
                    continue
                if (folder / entry["file"]).exists():
                    looks = base64.b64decode(entry["looks"])
                    thumbnails[entry["file"]] = np.frombuffer(looks, np.uint8).reshape(16, 16, 3)
            if "again" not in entry:
                done.add(entry["url"])
        except (ValueError, TypeError, KeyError, RecursionError):  # truncated, or not by this program
            pass
    return done, list(thumbnails.values())


def collect(urls, folder, wanted, fetcher, workers):
    """Fetches from `urls` into `folder` until it has `wanted` pictures. Returns how many it has, and why others were not kept."""
    done, thumbnails = read_log(folder)
    with open(folder / LOG, "a+b") as log:  # ends a truncated last line, so that the next entry has a line of its own
        log.seek(max(0, log.tell() - 1))
        if log.read() not in (b"", b"\n"):
            log.write(b"\n")
    urls = iter([url for url in dict.fromkeys(urls) if url not in done])
    reasons, results, under_way = Counter(), SimpleQueue(), 0
    bar = tqdm(total=wanted, initial=len(thumbnails), unit="photo", disable=None)
    with open(folder / LOG, "a", encoding="utf-8") as log, bar:
        while len(thumbnails) < wanted:
            for url in islice(urls, workers - under_way):  # daemons: Ctrl-C does not wait for them
                Thread(target=lambda url=url: results.put(obtain(fetcher, url)), daemon=True).start()
                under_way += 1
            if not under_way:
                break
            entry, thumbnail, content = results.get()
            under_way -= 1
            if content and is_copy(thumbnail, thumbnails):
                entry, content = {"url": entry["url"], "reason": "a copy"}, None
            if content:
                with replacing(folder / entry["file"], durable=False) as temporary:
                    temporary.write_bytes(content)
                thumbnails.append(thumbnail)
                bar.update()
            else:
                reasons[entry["reason"]] += 1
            log.write(json.dumps(entry) + "\n")
            log.flush()
    return len(thumbnails), reasons


def search(keyword, engine, most):
    """The addresses of photos that an image search finds, at most `most`. Raises UserError where the package is missing."""
    try:
        from icrawler import Downloader
        from icrawler.builtin import BaiduImageCrawler, BingImageCrawler
    except ImportError as error:
        raise UserError(f"--keyword needs a package that is not installed ({error}); type: "
                        "pip install -r requirements-photos.txt") from None
    found = []

    class Finder(Downloader):
        """Notes addresses in place of fetching them."""

        def download(self, task, *_, **__):
            found.append(task["file_url"])
            self.signal.set(reach_max_num=len(found) >= most)

    crawler = {"baidu": BaiduImageCrawler, "bing": BingImageCrawler}[engine]
    crawler(downloader_cls=Finder, log_level=logging.CRITICAL).crawl(keyword, max_num=most)
    return found[:most]


def read_addresses(path):
    """The addresses in a text file, one on each line; empty lines and lines that begin with # are ignored."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        raise UserError(f"--urls {path}: cannot be read ({getattr(error, 'strerror', None) or 'not a UTF-8 text'})") from None
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def build_parser():
    """The parser of the command's options."""
    parser = Parser(__doc__, "(--keyword WORD | --urls FILE) [options]")
    add = parser.add_argument
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--keyword", help="words to search for")
    which.add_argument("--urls", metavar="FILE", help="a text file of addresses, one on each line")
    add("--engine", choices=("baidu", "bing"), default="baidu", help="the image search")
    add("--num", type=number(int, 1), default=200, help="how many photos, with those that the folder already holds")
    add("--out", type=Path, default=Path("photos"), metavar="DIR", help="folder for the photos")
    add("--workers", type=number(int, 1, 64), default=8, help="how many to fetch at the same time")
    return parser


def main():
    """The command: finds addresses and fetches their photos."""
    options = build_parser().parse_args()
    if options.out.exists() and not options.out.is_dir():
        raise UserError(f"--out {options.out}: is a file; name a folder")
    print(CAUTION)
    if options.urls:
        urls = read_addresses(options.urls)
    else:
        urls = search(options.keyword, options.engine, min(MAX_FOUND, 3 * options.num))
        print(f"{len(urls)} photos of {options.keyword} found by {options.engine}")
    options.out.mkdir(parents=True, exist_ok=True)
    with claim(options.out):
        sweep(options.out)
        count, reasons = collect(urls, options.out, options.num, Fetcher(trusted=bool(options.urls)), options.workers)
    if reasons:
        print("not kept: " + ", ".join(f"{number} ({printable(why)})" for why, number in reasons.most_common()))
    if not count:
        why = "the reasons are above" if urls else "check the network, or try another keyword or --engine"
        raise UserError(f"no photo was kept; {why}", status=1)
    missing = f"; {options.num} were asked for, but there are no more" if count < options.num else ""
    print(f"{count} photos in {options.out}{missing}\nnext: python pretreat.py --input {options.out} --crop face")


if __name__ == "__main__":
    run_command(main)
