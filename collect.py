"""Fetches photos: by keyword from an image search, or from a list of addresses.

    python collect.py --keyword 人脸 --num 300          # Baidu's image search → photos/
    python collect.py --keyword face --engine bing
    python collect.py --urls addresses.txt              # an address a line

Stopped or cut off, the same command resumes where it was. Then: python pretreat.py --input photos --crop face
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

CAUTION = """Photos on the web belong to those who made them, and faces to those who wear them, who have not agreed to this.
Use what you collect for your own study, do not publish it, and ask before you train anything on it that others will see."""
LOG = "collected.jsonl"
ATTEMPTS = 3
ENDINGS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif", "PPM": "ppm", "AVIF": "avif"}
NAME = re.compile(r"[0-9a-f]{16}\.[a-z]+")  # of a picture
ALIKE = 0.03  # how much the thumbnails of copies differ at most, as a share of their contrast; those of other photos do by 0.07
MOST_FOUND = 1000  # what the searches give for a keyword


def examine(content):
    """The format of a picture and its thumbnail, uint8 [16, 16, 3]. Raises an exception that says what is wrong with it."""
    kind = Image.open(io.BytesIO(content), formats=[kind for kind in ENDINGS if kind in FORMATS]).format
    with decoded(content, 64) as (image, _, _):
        return kind, np.asarray(image.resize((16, 16), Image.Resampling.BOX))


def is_copy(thumbnail, others):
    """Whether a picture is another one in another size or format, by its thumbnail and theirs."""
    if not others:
        return False
    one, others = thumbnail.astype(np.float32), np.stack(others).astype(np.float32)
    distances = np.sqrt(((others - one) ** 2).mean(axis=(1, 2, 3)))
    return bool((distances <= ALIKE * np.maximum(1, np.minimum(one.std(), others.std(axis=(1, 2, 3))))).any())


def obtain(fetcher, url):
    """Fetches one picture: what to log about it, its thumbnail, and its bytes, or None twice where it is not kept.

    The log has "url", and "file", a name made from its bytes, or "reason"; "again" where the next run is to try again.
    """
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE * 2 ** attempt)
        try:
            content = fetcher.fetch(url)
            break
        except (OSError, HTTPException) as error:
            last = error
        except Exception as error:  # Refused, above all; whatever it is, it is told, not left to end the thread
            return {"url": url, "reason": reason(error)}, None, None
    else:
        return {"url": url, "reason": f"no answer ({type(last).__name__})", "again": True}, None, None
    try:
        kind, thumbnail = examine(content)
    except Exception as error:  # whatever a broken file makes a decoder say
        return {"url": url, "reason": reason(error)}, None, None
    name = f"{hashlib.sha256(content).hexdigest()[:16]}.{ENDINGS.get(kind, 'jpg')}"  # else it is an MPO, a kind of JPEG
    return {"url": url, "file": name, "looks": base64.b64encode(thumbnail.tobytes()).decode()}, thumbnail, content


def read_log(folder):
    """What earlier runs wrote: the addresses that are done, and the thumbnails of the pictures that are still there.

    A picture that the user has deleted is done too: it does not come back.
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
        except (ValueError, TypeError, KeyError, RecursionError):  # cut off, or not by this program
            pass
    return done, list(thumbnails.values())


def collect(urls, folder, wanted, fetcher, workers):
    """Fetches from `urls` into `folder` until it has `wanted` pictures. Returns how many it has, and why others were not kept."""
    done, thumbnails = read_log(folder)
    with open(folder / LOG, "a+b") as log:  # a line that was cut off must not take the next one with it
        log.seek(max(0, log.tell() - 1))
        if log.read() not in (b"", b"\n"):
            log.write(b"\n")
    urls = iter([url for url in dict.fromkeys(urls) if url not in done])
    reasons, results, under_way = Counter(), SimpleQueue(), 0
    with (open(folder / LOG, "a", encoding="utf-8") as log,
          tqdm(total=wanted, initial=len(thumbnails), unit="photo", disable=None) as bar):
        while len(thumbnails) < wanted:
            for url in islice(urls, workers - under_way):  # daemons: Ctrl-C waits for no server and no decoder
                Thread(target=lambda url=url: results.put(obtain(fetcher, url)), daemon=True).start()
                under_way += 1
            if not under_way:
                break
            entry, thumbnail, content = results.get()
            under_way -= 1
            if content and is_copy(thumbnail, thumbnails):
                entry, content = {"url": entry["url"], "reason": "there already"}, None
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
    parser = Parser(__doc__)
    add = parser.add_argument
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--keyword", help="what to search for")
    which.add_argument("--urls", metavar="FILE", help="a text file of addresses, one a line")
    add("--engine", choices=("baidu", "bing"), default="baidu", help="(default: baidu)")
    add("--num", type=number(int, 1), default=200, help="how many photos the folder is to have (default: 200)")
    add("--out", type=Path, default=Path("photos"), metavar="DIR", help="(default: photos)")
    add("--workers", type=number(int, 1, 64), default=8, help="how many at a time (default: 8)")
    options = parser.parse_args()

    if options.out.exists() and not options.out.is_dir():
        raise UserError(f"--out {options.out}: is a file; name a folder")
    print(CAUTION)
    if options.urls:
        urls = read_addresses(options.urls)
    else:
        urls = search(options.keyword, options.engine, min(MOST_FOUND, 3 * options.num))
        print(f"{len(urls)} photos of {options.keyword} found by {options.engine}")
    options.out.mkdir(parents=True, exist_ok=True)
    with claim(options.out):
        sweep(options.out)
        count, reasons = collect(urls, options.out, options.num, Fetcher(trusted=bool(options.urls)), options.workers)
    if reasons:
        print("not kept: " + ", ".join(f"{number} ({printable(why)})" for why, number in reasons.most_common()))
    if not count:
        why = "see above why" if urls else "is there a network? Else try another keyword or --engine"
        raise UserError(f"no photo came; {why}", status=1)
    missing = f"; {options.num} were asked for, but there are no more" if count < options.num else ""
    print(f"{count} photos in {options.out}{missing}\nnext: python pretreat.py --input {options.out} --crop face")


if __name__ == "__main__":
    run_command(main)
