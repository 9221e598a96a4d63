"""Photos → packed faces: decodes, crops and resizes pictures on all CPUs into one file that trains fast.

    python pretreat.py                          # CelebA, found here or among AI Studio's data sets → imgs/
    python pretreat.py --input photos more.zip  # your own photos of one face each: folders and .zip files
    python pretreat.py --input photos --crop face    # each face that is found in any photos
    python pretreat.py --download               # CelebA, fetched first (1.4 GB)

Writes imgs/faces.npy, manifest.json (the pictures, and why others were skipped) and preview.png (look at it before training).
"""
from support.cli import Parser, UserError, number, printable, run_command

import hashlib
import io
import json
import shlex
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from intake.attributes import read_list
from intake.detection import MARGIN, load_detector
from intake.download import digest_of, fetch
from intake.photos import Crop, cut_faces, reason
from intake.sources import ATTRIBUTES, BUILTIN, CELEBA, PICTURES, find, find_input, list_pictures
from support import figures
from support.device import usable_cpus
from support.files import check_own, flush, read_file, rebuilding, write_json
from support.schema import MAX_MANIFEST

MADE_HERE = {"faces.npy", "labels.npy", "manifest.json", "preview.png"}
CELEBA_URL = ("https://drive.usercontent.google.com/download?id=0B7EVK8r0v71pZjFTYXZWM3FlRnM&export=download&confirm=t"
              "&resourcekey=0-dYn9z10tMJOBAkviAcfdyQ")  # from CelebA's page; not tested with the real server
CELEBA_PAGE = "http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
CELEBA_MD5 = "00d2c5bc6d35e252742224ab0c1e8fcb"
CHUNK = 32  # pictures that a thread takes at a time; with single ones the overhead is half of the decoding time


def download_celeba(url):
    """Fetches CelebA's archive unless it is there; returns its path."""
    path = Path(CELEBA + ".zip")
    if not path.exists():
        fetch(url, path, "md5", CELEBA_MD5, f"fetch {path} with a browser from {CELEBA_PAGE}, or name a mirror with --url")
    elif digest_of(path, "md5") != CELEBA_MD5:
        raise UserError(f"{path}: not CelebA's archive, or a part of it; move it away, or leave out --download to use it")
    return path


class Cut(NamedTuple):
    """One picture's result: a digest of its file, its faces (uint8 [size, size, 3] each), the share of each that was filled by
    reflection, and the reasons why it or some of its faces were skipped."""

    picture: str
    digest: bytes
    faces: list
    filled: list
    reasons: list


def cut_picture(picture, size, crop):
    """Reads, decodes and cuts one picture; an error of it becomes a reason."""
    digest = b""
    try:
        data = picture.read()
        digest = hashlib.blake2b(data, digest_size=16).digest()
        return Cut(picture.name, digest, *cut_faces(data, size, crop))
    except (MemoryError, UserError):
        raise
    except Exception as error:  # a decoder may raise any for a damaged file
        return Cut(picture.name, digest, [], [], [reason(error)])


def decode_all(pictures, size, crop, workers):
    """Yields lists of `Cut`, for CHUNK pictures at a time, in input order, decoding on several threads."""
    coming, stopped = deque(), threading.Event()

    def cut(some):
        return [cut_picture(picture, size, crop) for picture in some if not stopped.is_set()]

    threads = ThreadPoolExecutor(workers)
    try:
        for start in range(0, len(pictures), CHUNK):
            coming.append(threads.submit(cut, pictures[start:start + CHUNK]))
            if len(coming) > 2 * workers:  # enough for all threads; more would take memory
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:  # also at Ctrl-C
        stopped.set()
        threads.shutdown(cancel_futures=True)


def npy_header(count, size):
    """The header of a .npy file of uint8 [count, size, size, 3]; NumPy pads it, so its length is the same for any count."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (count, size, size, 3)})
    return file.getvalue()


class Packed(NamedTuple):
    """The result of packing: the faces' names, skipped pictures as [{name, reason}], the faces' digest, how many were filled."""

    names: list
    skipped: list
    digest: str
    filled: int


def write_faces(path, chunks, pictures, size, many):
    """Writes the faces of `chunks` (lists of `Cut`), of so many `pictures`, as one .npy file: uint8 [N, size, size, 3].

    Of pictures with equal files the first is kept. With `many` a picture may have several faces, and they are numbered. Chunks
    leave the memory one by one. Faces are appended: writing into a mapping of the file would take longer (a page fault every
    4 KB), and crash where the disk is full.
    """
    names, skipped, first, digest, filled = [], [], {}, hashlib.blake2b(digest_size=16), 0
    with open(path, "wb") as file, tqdm(total=pictures, unit="picture", disable=None) as bar:
        file.write(npy_header(0, size))
        for chunk in chunks:
            for cut in chunk:
                if cut.faces and cut.digest in first:
                    skipped.append({"name": cut.picture, "reason": f"the same file as {first[cut.digest]}"})
                    continue
                if cut.faces:
                    first[cut.digest] = cut.picture
                names += [f"{cut.picture}#{i}" for i in range(1, len(cut.faces) + 1)] if many else [cut.picture] * len(cut.faces)
                skipped += [{"name": cut.picture, "reason": why} for why in cut.reasons]
                filled += sum(share > 0 for share in cut.filled)
                for face in cut.faces:
                    file.write(face)
                    digest.update(face)
            bar.update(len(chunk))
        file.seek(0)
        file.write(npy_header(len(names), size))
    flush(path)
    return Packed(names, skipped, digest.hexdigest(), filled)


def is_held_out(name, share):
    """Whether a picture is held out of training: decided by its name alone, so that it stays so when others are added."""
    digest = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def held_out_rows(names, options):
    """The rows of the held-out faces: all faces of a photo or none, for they may be of one person."""
    photos = [name.rpartition("#")[0] for name in names] if options.crop.kind == "face" else names
    return [row for row, photo in enumerate(photos) if is_held_out(photo, options.holdout)]


def with_labels(pictures, path):
    """Splits pictures by whether the list of attributes at `path` names them.

    Returns the attributes, the pictures named, their labels {picture's name: int8 [attributes]}, and the others as skipped.
    """
    attributes, rows = read_list(path)
    labels = {picture.name: rows.get(picture.name.rpartition("/")[2]) for picture in pictures}
    known = [picture for picture in pictures if labels[picture.name] is not None]
    missing = [{"name": name, "reason": f"not in {path}"} for name, row in labels.items() if row is None]
    if not known:
        raise UserError(f"--attributes {path}: names none of the pictures (the first of which is {printable(pictures[0].name)})")
    return attributes, known, labels, missing


def is_packed(folder):
    """Whether pretreat.py packed the faces in a folder: other files may have the same names."""
    try:
        return {"names", "held_out"} <= json.loads(read_file(folder / "manifest.json", MAX_MANIFEST)).keys()
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def pack(pictures, sources, partial, options):
    """Writes faces.npy, manifest.json, preview.png, and labels.npy where there are any, into the new folder `partial`.

    Returns the manifest.
    """
    given, attributes, labels, missing = len(pictures), [], {}, []
    if options.attributes:
        attributes, pictures, labels, missing = with_labels(pictures, options.attributes)
    chunks = decode_all(pictures, options.size, options.crop, options.workers)
    packed = write_faces(partial / "faces.npy", chunks, len(pictures), options.size, options.crop.kind == "face")
    names, skipped = packed.names, missing + packed.skipped
    if not names:
        raise UserError(f"none of the {given} pictures could be used; the first: {printable(skipped[0]['name'])}: "
                        f"{printable(skipped[0]['reason'])}")
    if attributes:
        np.save(partial / "labels.npy", np.stack([labels[name] for name in names]))
    faces = np.load(partial / "faces.npy", mmap_mode="r")
    figures.save_picture(partial / "preview.png", figures.grid(faces[figures.evenly(len(names))], columns=10))
    manifest = {"sources": sources, "crop": str(options.crop), "size": options.size, "count": len(names), "digest": packed.digest,
                "filled": packed.filled, "holdout": options.holdout, "attributes": attributes, "skipped": skipped,
                "held_out": held_out_rows(names, options), "names": names}
    write_json(partial / "manifest.json", manifest)
    return manifest


def build_parser():
    """The parser of the command's options."""
    parser = Parser(__doc__)
    add = parser.add_argument_group("photos").add_argument
    add("--input", nargs="+", metavar="PATH", help="folders and .zip files of photos (default: CelebA, where it is found)")
    add("--download", action="store_true", help=f"fetch CelebA's aligned pictures to {CELEBA}.zip first, unless it is there")
    add("--url", help="address for --download (default: CelebA's own at Google Drive)")
    add("--attributes", nargs="?", const="", metavar="FILE",
        help=f"also pack labels: from {ATTRIBUTES}, where it is found, or from another list in its format")
    add("--limit", type=number(int, 1), metavar="N", help="take only the first N pictures")
    add = parser.add_argument_group("faces").add_argument
    add("--size", type=number(int, 8, 1024), default=64, help="height and width of a face, px")
    add("--crop", choices=("auto", "celeba", "center", "face"), default="auto",
        help="auto: celeba for pictures of CelebA's proportions, else center; celeba: the face in CelebA's aligned pictures; "
             "center: the centred square; face: each face that is found")
    add("--box", type=number(int, 8), metavar="PX", help="with --crop center, the side of the square, in px of the photo")
    add("--margin", type=number(int, 0, 24), metavar="PX",
        help=f"with --crop face, the space on each side of the face, in px of 64 (default: {MARGIN}, as in CelebA's "
             "pictures)")
    add = parser.add_argument_group("packing").add_argument
    add("--out", type=Path, default=Path("imgs"), metavar="DIR", help="folder for the packed faces")
    add("--holdout", type=number(float, 0, below=1), default=0.05, metavar="SHARE", help="share of pictures held out of training")
    add("--workers", type=number(int, 1, 256), default=usable_cpus(), metavar="N", help="threads (default: as many as CPUs)")
    return parser


def read_options():
    """The options of the command line. Raises UserError where some do not go together, or what they need is missing."""
    options = build_parser().parse_args()
    for flag, value, kind in (("--box", options.box, "center"), ("--margin", options.margin, "face")):
        if value is not None and options.crop != kind:
            raise UserError(f"{flag} goes with --crop {kind}")
    if options.crop == "face":
        if options.attributes is not None:
            raise UserError("--attributes goes with one face in each picture, not with --crop face")
        load_detector()  # raises UserError where it is not installed
    if options.attributes == "":
        options.attributes = find(ATTRIBUTES, Path.is_file)
        if not options.attributes:
            raise UserError(f"--attributes: no {ATTRIBUTES} was found, here or among the mounted data sets; name its path")
    if options.download and options.input:
        raise UserError("--download is itself the input; leave out --input")
    if options.url and not options.download:
        raise UserError("--url goes with --download")
    options.crop = Crop(options.crop, options.box, MARGIN if options.margin is None else options.margin)
    return options


def next_command(out, crop, size):
    """The command to type next: faces in another folder than imgs get a run of their own, and faces found in photos, which are
    usually few, start with the pretrained weights, which draw 64 px and grow to 128."""
    name = out.name.removeprefix("imgs").strip("-_. ")
    start = " --from celeba64" if crop.kind == "face" and size in (64, 128) else ""
    data = "" if str(out) == "imgs" else f" --data {shlex.quote(str(out))}"
    return f"python train.py{start}{data}" + (f" --out {shlex.quote(f'Output-{name}')}" if name else "")


def main():
    """The command: finds the pictures and packs their faces."""
    options = read_options()
    check_own(options.out, "--out", MADE_HERE, is_packed)
    if options.download:
        options.input = [download_celeba(options.url or CELEBA_URL)]
    sources = [str(path) for path in options.input or find_input()]
    if sources:
        pictures = list_pictures(sources)
        print(f"input: {printable(', '.join(sources))}")
    else:
        from intake.builtin import builtin_pictures  # imported where it is needed, for Paddle takes seconds

        sources, pictures = [BUILTIN], builtin_pictures(options.limit)
        print(f"no photos: neither --input nor a folder or .zip named img_align_celeba was found; packing {len(pictures):,} "
              "faces instead that the pretrained generator draws: good enough to see one learn, and of nobody who exists")
    if not pictures:
        raise UserError(f"no pictures in {', '.join(sources)} ({', '.join(PICTURES)} are looked for)")
    pictures = pictures[:options.limit]
    print(f"{len(pictures):,} pictures → {options.size}×{options.size} px in {options.out}, {options.workers} threads")

    with rebuilding(options.out, "--out", MADE_HERE, is_packed) as partial:
        manifest = pack(pictures, sources, partial, options)
    print(f"kept {manifest['count']:,}, skipped {len(manifest['skipped']):,}: see {options.out}/manifest.json")
    if manifest["filled"]:
        print(f"{manifest['filled']:,} faces reach beyond their photo's edges and were filled by reflection; with a smaller "
              f"--margin than {options.crop.margin} they are fewer, but cut closer than those that the pretrained weights know")
    print(f"look at {options.out}/preview.png, then: {next_command(options.out, options.crop, options.size)}")


if __name__ == "__main__":
    run_command(main)
