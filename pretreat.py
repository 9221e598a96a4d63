"""Photos → packed faces: decodes, crops and resizes pictures on all CPUs into one file that trains fast.

    python pretreat.py                          # finds CelebA, here or among AI Studio's data sets → imgs/
    python pretreat.py --input photos more.zip  # your own photos: folders and .zip files

Writes imgs/faces.npy, manifest.json (what went in, what was skipped and why) and preview.png (look at it before you train).
"""
import runtime  # noqa: I001  (first, as in every script)

import hashlib
import io
import math
import os
import shutil
import warnings
import zipfile
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

import figures
from files import flush, replace_folder, write_json
from runtime import UserError

PICTURES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2")
MADE_HERE = {"faces.npy", "manifest.json", "preview.png"}
CELEBA = "img_align_celeba"
CELEBA_PROPORTION = 178 / 218
SMALLEST = 8  # px; a picture with a shorter side shows no face
CHUNK = 32  # pictures that a thread takes at a time; handing over single ones costs half as much as decoding them
MOST_BYTES = 256 * 2**20  # of one picture file


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
    return name.lower().endswith(PICTURES) and not any(
        part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def pictures_in_folder(folder):
    pictures = []
    for place, folders, names in os.walk(folder):
        folders.sort()
        inside = Path(place).relative_to(folder).as_posix()
        for file_name in sorted(names):
            name = file_name if inside == "." else f"{inside}/{file_name}"
            path = os.path.join(place, file_name)
            if is_wanted(name) and os.path.isfile(path):
                pictures.append(Picture(name, lambda path=path: read_file(path)))
    return pictures


def read_file(path):
    check_length(os.path.getsize(path))
    with open(path, "rb", buffering=0) as file:
        return file.read()


def check_length(length):
    if length > MOST_BYTES:
        raise ValueError(f"larger than {MOST_BYTES >> 20} MiB")


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
    check_length(entry.file_size)
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
    return image if image.mode == "RGB" else image.convert("RGB")


def crop_face(image, box, size, crop):
    """What an upright RGB picture has in a box (0, 0, width, height) → a face, uint8 [size, size, 3].

    It is resized bilinearly with antialiasing, which in Pillow is one step with the cut.

    celeba  width → size, then the box (0, 10)–(64, 74), scaled with size / 64: the face in an aligned CelebA picture
    center  the largest centred square
    auto    celeba for pictures of CelebA's proportions (178:218, within 1%), else center
    """
    _, _, width, height = box
    if crop == "celeba" or crop == "auto" and abs(width / height / CELEBA_PROPORTION - 1) < 0.01:
        top, scaled_height = round(size * 10 / 64), round(height * size / width)
        if scaled_height < top + size:
            raise ValueError("not tall enough for --crop celeba")
        scale = height / scaled_height
        box = (0, top * scale, width, (top + size) * scale)
    else:
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
    return np.frombuffer(image.resize((size, size), Image.Resampling.BILINEAR, box).tobytes(), np.uint8).reshape(size, size, 3)


def decode(data, size, crop):
    """The bytes of a picture file → a face, uint8 [size, size, 3]. Raises an exception that says what is wrong with them."""
    if not data:
        raise ValueError("empty file")
    wanted = math.ceil(1.25 * size)  # px of the shorter side; see `scaled_jpeg`
    if data.startswith(b"\xff\xd8") and data.find(b"\xff\xe1", 0, 4096) < 0:  # a JPEG without EXIF: upright as it is
        try:
            return crop_face(*scaled_jpeg(data, wanted), size, crop)
        except ValueError:
            pass  # CMYK, damaged, not as large as it should be: Pillow has the last word
    image = Image.open(io.BytesIO(data))
    if min(image.size) < SMALLEST:
        raise ValueError(f"only {image.width}×{image.height} px")
    image.draft(None, (4 * wanted, 4 * wanted))  # does nothing to other formats
    image = to_rgb(ImageOps.exif_transpose(image))
    return crop_face(image, (0, 0, *image.size), size, crop)


def scaled_jpeg(data, wanted):
    """A JPEG decoded at 1/8, 1/4, 1/2 or whole, so that no side is below `wanted`: (RGB picture, box that it fills).

    A quarter larger than the face will be, the face is within 44 dB of one from the picture decoded whole; saving it as
    JPEG once more would cost ten times as much. Unlike Pillow, simplejpeg needs Python's lock for none of this, so that
    threads do not wait for each other. Raises ValueError for what is not a sound colour or grey JPEG.
    """
    height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    if colours in ("CMYK", "YCCK") or min(width, height) < SMALLEST or width * height > Image.MAX_IMAGE_PIXELS:
        raise ValueError("one for Pillow")
    scale = next((scale for scale in (8, 4, 2) if min(width, height) >= scale * wanted), 1)
    pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=math.ceil(height / scale), min_width=math.ceil(width / scale))
    return Image.fromarray(pixels), (0, 0, width / scale, height / scale)


def reason(error):
    """Why a picture was skipped, in words."""
    if isinstance(error, UnidentifiedImageError):
        return "not a picture, or cut short"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"more pixels than the {Image.MAX_IMAGE_PIXELS:,} that are safe to decode"
    return f"{error}" or type(error).__name__


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
    others = sorted({path.name for path in out.iterdir()} - MADE_HERE) if out.exists() else []
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
        raise UserError(f"no pictures in {', '.join(sources)} ({', '.join(PICTURES)} are looked for)")
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
