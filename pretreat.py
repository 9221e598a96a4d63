"""Photos → packed faces: decodes, crops and resizes pictures on all CPUs into one file that trains fast.

    python pretreat.py                          # finds CelebA, here or among AI Studio's data sets → imgs/
    python pretreat.py --input photos more.zip  # your own photos: folders and .zip files

Writes imgs/faces.npy, manifest.json (what went in, what was skipped and why) and preview.png (look at it before you train).
"""
import runtime  # noqa: I001  (first, as in every script)

import hashlib
import io
import shutil
import warnings
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

import figures
from files import claim, flush, replace_folder, write_json
from photos import PICTURES, Picture, decode, list_pictures, reason
from runtime import UserError

MADE_HERE = {"faces.npy", "manifest.json", "preview.png"}
CELEBA = "img_align_celeba"
CHUNK = 32  # pictures that a thread takes at a time; handing over single ones costs half as much as decoding them


def find_input():
    """Where CelebA is: here, or among AI Studio's mounted data sets; an empty list where it is nowhere."""
    places = [Path(CELEBA), Path(CELEBA + ".zip")]
    for mount in sorted(Path.home().glob("data/data*")):
        places += [mount / CELEBA, mount / (CELEBA + ".zip")]
    return [place for place in places if place.exists()][:1]


def builtin_pictures():
    """The 100 faces that ship inside scikit-image (25×25, grey), for a machine without photos."""
    from skimage.data import lfw_subset

    def as_png(face):
        file = io.BytesIO()
        Image.fromarray(np.round(face * 255).astype(np.uint8)).save(file, "png")
        return file.getvalue()

    return [Picture(f"lfw_subset/{i:03d}.png", lambda face=face: as_png(face)) for i, face in enumerate(lfw_subset()[:100])]


def decode_chunk(pictures, size, crop):
    """Several pictures → (names kept, their faces uint8 [kept, size, size, 3], skipped as [{name, reason}])."""
    names, faces, skipped = [], np.empty((len(pictures), size, size, 3), np.uint8), []
    for picture in pictures:
        try:
            faces[len(names)] = decode(picture.read(), size, crop)
            names.append(picture.name)
        except MemoryError:
            raise
        except Exception as error:  # whatever a broken file makes a decoder say
            skipped.append({"name": picture.name, "reason": reason(error)})
    return names, faces[:len(names)], skipped


def decode_all(pictures, size, crop, workers):
    """Yields what `decode_chunk` returns, for CHUNK pictures at a time, in input order, decoding on several threads."""
    coming = deque()
    with ThreadPoolExecutor(workers) as threads:
        for start in range(0, len(pictures), CHUNK):
            coming.append(threads.submit(decode_chunk, pictures[start:start + CHUNK], size, crop))
            if len(coming) > 2 * workers:  # enough to keep every thread busy; more would only fill the memory
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def npy_header(count, size):
    """The head of a .npy file of uint8 [count, size, size, 3]; NumPy pads it, so its length is the same for any count."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (count, size, size, 3)})
    return file.getvalue()


def write_faces(path, chunks, most, size):
    """Writes the faces of `chunks` (see `decode_chunk`), `most` at most, as one .npy file. Returns (names kept, skipped).

    A chunk leaves the memory when the next one comes, however many there are. They are written one after the other:
    writing into a mapping of the file would take longer (a page fault every 4 KB), and crash where the disk is full.
    """
    kept, skipped = [], []
    with open(path, "wb") as file, tqdm(total=most, unit="picture", disable=None) as bar:
        file.write(npy_header(most, size))
        for names, faces, bad in chunks:
            file.write(faces)
            kept += names
            skipped += bad
            bar.update(len(names) + len(bad))
        file.seek(0)
        file.write(npy_header(len(kept), size))
    flush(path)
    return kept, skipped


def is_held_out(name, share):
    """Whether a picture belongs to the held-out split: decided by its name alone, so that it never changes sides."""
    digest = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def check_out(out):
    """Raises UserError when `out` holds anything that this script did not make and would have to delete."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file; name a folder")
    names = {path.name.removeprefix(".writing-") for path in out.iterdir()} if out.exists() else set()
    others = sorted(names - MADE_HERE)
    if others:
        raise UserError(f"--out {out}: holds other files ({others[0]}); name a folder of its own")


def pack(pictures, sources, partial, options):
    """Writes faces.npy, manifest.json and preview.png into the new folder `partial`. Returns the manifest."""
    chunks = decode_all(pictures, options.size, options.crop, options.workers)
    names, skipped = write_faces(partial / "faces.npy", chunks, len(pictures), options.size)
    if not names:
        raise UserError(f"none of the {len(pictures)} pictures could be read; the first: {skipped[0]['name']}: "
                        f"{skipped[0]['reason']}")
    manifest = {"sources": sources, "crop": options.crop, "size": options.size, "count": len(names),
                "holdout": options.holdout, "skipped": skipped,
                "held_out": [row for row, name in enumerate(names) if is_held_out(name, options.holdout)], "names": names}
    write_json(partial / "manifest.json", manifest)
    packed = np.load(partial / "faces.npy", mmap_mode="r")
    figures.save_picture(partial / "preview.png", figures.grid(packed[figures.evenly(len(names))], columns=10))
    return manifest


def main():
    """The command: reads its options, finds the pictures, packs them, and puts the result in its place."""
    parser = runtime.Parser(__doc__)
    add = parser.add_argument
    add("--input", nargs="+", metavar="PATH", help="folders and .zip files of photos (default: CelebA, where it is found)")
    add("--out", type=Path, default=Path("imgs"), metavar="DIR", help="(default: imgs)")
    add("--size", type=runtime.number(int, 8, 1024), default=64, help="height and width of a face, px (default: 64)")
    add("--crop", choices=("auto", "celeba", "center"), default="auto",
        help="auto: celeba for pictures of CelebA's proportions, else the centred square (default: auto)")
    add("--limit", type=runtime.number(int, 1), metavar="N", help="take the first N pictures only")
    add("--workers", type=runtime.number(int, 1, 256), default=runtime.usable_cpus(), metavar="N",
        help="threads (default: the CPUs there are)")
    add("--holdout", type=runtime.number(float, 0, below=1), default=0.05, metavar="SHARE",
        help="share of the pictures kept out of training, to measure on (default: 0.05)")
    options = parser.parse_args()

    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # such a picture is skipped, and listed
    check_out(options.out)
    sources = [str(path) for path in options.input or find_input()]
    if sources:
        pictures = list_pictures(sources)
        print(f"input: {', '.join(sources)}")
    else:
        sources, pictures = ["skimage.data.lfw_subset()"], builtin_pictures()
        print("no photos: neither --input nor a folder or .zip named img_align_celeba was found; taking the 100 small "
              "grey faces that ship with scikit-image, enough to see that everything works")
    if not pictures:
        raise UserError(f"no pictures in {', '.join(sources)} ({', '.join(PICTURES)} are looked for)")
    pictures = pictures[:options.limit]
    print(f"{len(pictures)} pictures → {options.size}×{options.size} px in {options.out}, {options.workers} threads")

    out = options.out.resolve()
    partial = out.with_name(out.name + ".partial")
    check_out(partial)  # it may be there, left by a run that was killed
    partial.mkdir(parents=True, exist_ok=True)
    with claim(partial):
        try:
            manifest = pack(pictures, sources, partial, options)
            check_out(out)  # hours may have gone by
            replace_folder(partial, out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    print(f"kept {manifest['count']:,}, skipped {len(manifest['skipped']):,}: see {options.out}/manifest.json\n"
          f"look at {options.out}/preview.png, then: python train.py" + (
              f" --data {options.out}" if str(options.out) != "imgs" else ""))


if __name__ == "__main__":
    runtime.run_command(main)
