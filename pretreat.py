"""Photos → packed faces: decodes, crops and resizes pictures on all CPUs into one file that trains fast.

    python pretreat.py                          # finds CelebA, here or among AI Studio's data sets → imgs/
    python pretreat.py --input photos more.zip  # your own photos: folders and .zip files

Writes imgs/faces.npy, manifest.json (what went in, what was skipped and why) and preview.png (look at it before you train).
"""
import runtime  # noqa: I001  (first, as in every script)

import hashlib
import io
import os
import shutil
import warnings
import zipfile
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Callable, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

import figures
from files import flush, replace_folder, write_json
from runtime import UserError

PICTURES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2"}
MADE_HERE = {"faces.npy", "manifest.json", "preview.png"}
CELEBA = "img_align_celeba"
CELEBA_PROPORTION = 178 / 218
SMALLEST = 8  # px; a picture with a shorter side shows no face
MOST_BYTES = 256 * 2**20  # of one picture file
WINDOW = 2048  # faces mapped into memory at a time


class Picture(NamedTuple):
    """One picture of the input: its name within it, and a function that reads its bytes."""

    name: str
    read: Callable[[], bytes]


def find_input():
    """Where CelebA is: here, or among AI Studio's mounted data sets; an empty list where it is nowhere."""
    places = [Path(CELEBA), Path(CELEBA + ".zip")]
    for mount in sorted(Path.home().glob("data/data*")):
        places += [mount / CELEBA, mount / (CELEBA + ".zip")]
    return [place for place in places if place.exists()][:1]


def list_pictures(paths):
    """Every picture in folders (searched recursively, by name) and .zip files (in their own order)."""
    pictures = []
    for path in map(Path, paths):
        if path.is_dir():
            pictures += pictures_in_folder(path)
        elif zipfile.is_zipfile(path):
            pictures += pictures_in_zip(path)
        elif path.exists():
            raise UserError(f"--input {path}: neither a folder nor a readable .zip file")
        else:
            raise UserError(f"--input {path}: no such folder or .zip file")
    return pictures


def is_wanted(name):
    """Whether a path within the input is a picture's and not hidden, nor one of macOS's shadows."""
    parts = PurePosixPath(name).parts
    return PurePosixPath(name).suffix.lower() in PICTURES and not any(
        part.startswith(".") or part == "__MACOSX" for part in parts)


def pictures_in_folder(folder):
    pictures = []
    for place, folders, names in os.walk(folder):
        folders.sort()
        for path in (Path(place, name) for name in sorted(names)):
            name = path.relative_to(folder).as_posix()
            if is_wanted(name) and path.is_file():
                pictures.append(Picture(name, lambda path=path: read_file(path)))
    return pictures


def read_file(path):
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"larger than {MOST_BYTES >> 20} MiB")
    return path.read_bytes()


def pictures_in_zip(path):
    archive = zipfile.ZipFile(path)
    return [Picture(name, lambda entry=entry: read_entry(archive, entry))
            for entry in archive.infolist() if not entry.is_dir() and is_wanted(name := entry_name(entry))]


def entry_name(entry):
    """A zip entry's name; where the archive does not say that it is UTF-8, it may be that all the same, or Chinese GBK."""
    if not entry.flag_bits & 0x800:
        for encoding in ("utf-8", "gbk"):
            try:
                return entry.filename.encode("cp437").decode(encoding)
            except UnicodeError:
                pass
    return entry.filename


def read_entry(archive, entry):
    if entry.flag_bits & 0x1:
        raise ValueError("encrypted in the .zip file")
    if entry.file_size > MOST_BYTES:
        raise ValueError(f"larger than {MOST_BYTES >> 20} MiB")
    return archive.read(entry)


def builtin_pictures():
    """The 100 faces that ship inside scikit-image (25×25, grey), for a machine without photos."""
    from skimage.data import lfw_subset

    def as_png(face):
        file = io.BytesIO()
        Image.fromarray(np.round(face * 255).astype(np.uint8)).save(file, "png")
        return file.getvalue()

    return [Picture(f"lfw_subset/{i:03d}.png", lambda face=face: as_png(face)) for i, face in enumerate(lfw_subset()[:100])]


def to_rgb(image):
    """Any picture as 8-bit RGB: 16-bit grey scaled down, transparency on white."""
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would cut it off at 255
        grey = np.asarray(image).astype(np.int64).clip(0, 65535) // 257
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def crop_face(image, size, crop):
    """An upright RGB picture → uint8 [size, size, 3], resized bilinearly with antialiasing.

    celeba  width → size, then the box (0, 10)–(64, 74), scaled with size / 64: the face in an aligned CelebA picture
    center  the largest centred square
    auto    celeba for pictures of CelebA's proportions (178:218, within 1%), else center
    """
    width, height = image.size
    if crop == "celeba" or crop == "auto" and abs(width / height / CELEBA_PROPORTION - 1) < 0.01:
        top, height = round(size * 10 / 64), round(height * size / width)
        if height < top + size:
            raise ValueError("not tall enough for --crop celeba")
        image = image.resize((size, height), Image.Resampling.BILINEAR).crop((0, top, size, top + size))
    else:
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        image = image.resize((size, size), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
    return np.asarray(image)


def decode(data, size, crop):
    """The bytes of a picture file → a face, uint8 [size, size, 3]. Raises an exception that says what is wrong with them."""
    if not data:
        raise ValueError("empty file")
    with Image.open(io.BytesIO(data)) as image:
        if min(image.size) < SMALLEST:
            raise ValueError(f"only {image.width}×{image.height} px")
        # JPEG can be decoded at 1/2, 1/4 or 1/8 for less time; at twice the final size or more, nobody sees it.
        image.draft(None, (2 * size, 2 * size))
        image.load()
        return crop_face(to_rgb(ImageOps.exif_transpose(image)), size, crop)


def reason(error):
    """Why a picture was skipped, in words."""
    if isinstance(error, UnidentifiedImageError):
        return "not a picture, or cut short"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"more pixels than the {Image.MAX_IMAGE_PIXELS:,} that are safe to decode"
    return f"{error}" or type(error).__name__


def faces_of(pictures, size, crop, workers):
    """Yields (name, face) or (name, reason why there is none) in input order, decoding on several threads."""

    def work(picture):
        try:
            return decode(picture.read(), size, crop)
        except MemoryError:
            raise
        except Exception as error:  # whatever a broken file makes a decoder say
            return reason(error)

    coming = deque()
    with ThreadPoolExecutor(workers) as threads:
        for picture in pictures:
            coming.append((picture.name, threads.submit(work, picture)))
            if len(coming) >= 8 * workers:  # enough to keep every thread busy; more would only fill the memory
                name, face = coming.popleft()
                yield name, face.result()
        for name, face in coming:
            yield name, face.result()


def npy_header(count, size):
    """The head of a .npy file of uint8 [count, size, size, 3]; NumPy pads it, so its length is the same for any count."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (count, size, size, 3)})
    return file.getvalue()


def reserve(file, length):
    """Takes the disk space of a file in advance: a full disk is an error now, not a crash while it is mapped."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, length)
    else:
        if shutil.disk_usage(Path(file.name).parent).free < length:
            raise OSError(28, "No space left on device", file.name)
        file.truncate(length)


def write_faces(path, faces, most, size):
    """Writes faces, `most` of them at most, straight into a memory-mapped .npy file. Returns (names kept, skipped)."""
    header, face_bytes = npy_header(most, size), size * size * 3
    kept, skipped = [], []
    with open(path, "w+b") as file:
        reserve(file, len(header) + most * face_bytes)
        for name, face in faces:
            if isinstance(face, str):
                skipped.append({"name": name, "reason": face})
                continue
            row = len(kept) % WINDOW
            if row == 0:  # the next window; the last one leaves the memory
                offset, rows = len(header) + len(kept) * face_bytes, min(WINDOW, most - len(kept))
                window = np.memmap(file, np.uint8, "r+", offset, (rows, size, size, 3))
            window[row] = face
            kept.append(name)
        file.truncate(len(header) + len(kept) * face_bytes)
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
    others = sorted({path.name for path in out.iterdir()} - MADE_HERE) if out.exists() else []
    if others:
        raise UserError(f"--out {out}: holds other files ({others[0]}); name a folder of its own")


def pack(pictures, sources, partial, options):
    """Writes faces.npy, manifest.json and preview.png into the new folder `partial`. Returns the manifest."""
    faces = faces_of(tqdm(pictures, unit="picture", disable=None), options.size, options.crop, options.workers)
    names, skipped = write_faces(partial / "faces.npy", faces, len(pictures), options.size)
    if not names:
        raise UserError(f"none of the {len(pictures)} pictures could be read; the first: {skipped[0]['name']}: "
                        f"{skipped[0]['reason']}")
    manifest = {"sources": sources, "crop": options.crop, "size": options.size, "count": len(names),
                "holdout": options.holdout, "skipped": skipped,
                "held_out": [row for row, name in enumerate(names) if is_held_out(name, options.holdout)], "names": names}
    write_json(partial / "manifest.json", manifest)
    packed = np.load(partial / "faces.npy", mmap_mode="r")
    shown = np.linspace(0, len(names) - 1, min(100, len(names))).astype(int)
    figures.save_picture(partial / "preview.png", figures.grid(packed[shown], columns=10))
    return manifest


def main():
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

    warnings.simplefilter("error", Image.DecompressionBombWarning)  # a picture that large is skipped
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
        raise UserError(f"no pictures in {', '.join(sources)} ({', '.join(sorted(PICTURES))} are looked for)")
    pictures = pictures[:options.limit]
    print(f"{len(pictures)} pictures → {options.size}×{options.size} px in {options.out}, {options.workers} threads")

    partial = options.out.with_name(options.out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed
    partial.mkdir(parents=True)
    try:
        manifest = pack(pictures, sources, partial, options)
        replace_folder(partial, options.out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"kept {manifest['count']:,}, skipped {len(manifest['skipped']):,}: see {options.out}/manifest.json\n"
          f"look at {options.out}/preview.png, then: python train.py" + (
              f" --data {options.out}" if str(options.out) != "imgs" else ""))


if __name__ == "__main__":
    runtime.run_command(main)
