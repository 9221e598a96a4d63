"""Photos as people have them: finding them in folders and .zip files, and making a face picture of each."""
import io
import math
import os
import zipfile
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from detection import MARGIN, cut_face, find_faces
from runtime import UserError

PICTURES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2")
CELEBA_PROPORTION = 178 / 218
SMALLEST = 8  # px; a picture with a shorter side shows no face
MOST_BYTES = 256 * 2**20  # of one picture file


class Picture(NamedTuple):
    """One picture of the input: its name within it, and a function that reads its bytes."""

    name: str
    read: Callable[[], bytes]


def list_pictures(paths, flag="--input"):
    """Every picture in folders (searched recursively, by name) and .zip files (in their own order).

    Raises UserError, which names `flag`, for any other path.
    """
    pictures = []
    for path in map(Path, paths):
        if path.is_dir():
            pictures += pictures_in_folder(path)
        elif zipfile.is_zipfile(path):
            pictures += pictures_in_zip(path, flag)
        elif path.exists():
            raise UserError(f"{flag} {path}: neither a folder nor a readable .zip file")
        else:
            raise UserError(f"{flag} {path}: no such folder or .zip file")
    return pictures


def is_wanted(name):
    """Whether a path within the input is a picture's and not hidden, nor one of macOS's shadows."""
    return name.lower().endswith(PICTURES) and not any(
        part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def pictures_in_folder(folder):
    """Its pictures and those of its folders, sorted by name; pipes and the like are passed over."""
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
    """The bytes of a file. Raises ValueError where it is too large for a photo."""
    check_length(os.path.getsize(path))
    with open(path, "rb", buffering=0) as file:
        return file.read()


def check_length(length):
    """Raises ValueError for more bytes than a photo has."""
    if length > MOST_BYTES:
        raise ValueError(f"larger than {MOST_BYTES >> 20} MiB")


def pictures_in_zip(path, flag):
    """Its pictures, in its own order; the file stays open for reading them. Raises UserError for a damaged one."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, RuntimeError, UnicodeError) as error:  # RuntimeError: a version unknown to Python
        raise UserError(f"{flag} {path}: a damaged or unusual .zip file ({error}); fetch or pack it again") from None
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
    """The bytes of a zip entry. Raises ValueError where it is encrypted or too large for a photo."""
    if entry.flag_bits & 0x1:
        raise ValueError("encrypted in the .zip file")
    check_length(entry.file_size)
    return archive.read(entry)


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


class Crop(NamedTuple):
    """Which part of a picture becomes a face.

    celeba  width → size, then the box (0, 10)–(64, 74), scaled with size / 64: the face in an aligned CelebA picture
    center  the largest centred square, or with `box` the centred square of so many px
    auto    celeba for pictures of CelebA's proportions (178:218, within 1%), else center
    face    each face that is found, with `margin` px of 64 around it (see detection.py)
    """

    kind: str = "auto"
    box: int | None = None
    margin: int = MARGIN

    def __str__(self):
        return self.kind + (f" {self.box}" if self.box else f" {self.margin}" if self.kind == "face" else "")


def crop_face(image, filled, scale, size, crop):
    """A part of an upright RGB picture → a face, uint8 [size, size, 3]. Raises ValueError where the picture is too small for it.

    filled  width and height in px of what the picture shows, from its upper left on
    scale   how many px of the file one of those is
    crop    a Crop, not of faces

    It is resized bilinearly with antialiasing, which in Pillow is one step with the cut.
    """
    width, height = filled
    if crop.kind == "celeba" or crop.kind == "auto" and abs(width / height / CELEBA_PROPORTION - 1) < 0.01:
        top, scaled_height = round(size * 10 / 64), round(height * size / width)
        if scaled_height < top + size:
            raise ValueError("not tall enough for --crop celeba")
        stretch = height / scaled_height
        box = (0, top * stretch, width, (top + size) * stretch)
    else:
        side = crop.box / scale if crop.box else min(width, height)
        if side > min(width, height):
            raise ValueError(f"smaller than --box {crop.box}")
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
    return np.frombuffer(image.resize((size, size), Image.Resampling.BILINEAR, box).tobytes(), np.uint8).reshape(size, size, 3)


def cut_faces(data, size, crop):
    """The bytes of a picture file → its faces, a list of uint8 [size, size, 3], and why others were left out, a list of texts.

    There is one face, or with --crop face as many as are found. Raises an exception that says what is wrong with the file.
    """
    if crop.kind != "face":
        return [decode(data, size, crop)], []
    image, _, _ = open_picture(data)
    faces, reasons = [], []
    for points in find_faces(image):
        try:
            faces.append(cut_face(image, points, size, crop.margin))
        except ValueError as error:
            reasons.append(str(error))
    return faces, reasons if faces or reasons else ["no face found"]


def decode(data, size, crop):
    """The bytes of a picture file → a face, uint8 [size, size, 3]. Raises an exception that says what is wrong with them."""
    # A quarter larger than the face will be, the face is within 44 dB of one from the picture decoded whole; saving it as JPEG
    # once more would cost ten times as much.
    return crop_face(*open_picture(data, math.ceil(1.25 * size), crop.box), size, crop)


def open_picture(data, wanted=None, box=None):
    """The bytes of a picture file → (an upright RGB picture, the width and height that it fills, px of the file a px of it).

    A JPEG may be decoded smaller, so that the shorter side, or `box` px of the file, has at least `wanted` px.
    """
    if not data:
        raise ValueError("empty file")
    if data.startswith(b"\xff\xd8"):
        return decode_jpeg(data, wanted, box)
    image = Image.open(io.BytesIO(data))
    check_size(*image.size)
    image = to_rgb(ImageOps.exif_transpose(image))
    return image, image.size, 1


def check_size(width, height):
    """Raises ValueError for a picture that is too small to show a face or too large to be decoded safely."""
    if min(width, height) < SMALLEST:
        raise ValueError(f"only {width}×{height} px")
    if width * height > Image.MAX_IMAGE_PIXELS:
        raise ValueError(f"{width}×{height} px; more than {Image.MAX_IMAGE_PIXELS:,} in all are not safe to decode")


def decode_jpeg(data, wanted, box):
    """`open_picture` for a JPEG, which is decoded at 1/8, 1/4, 1/2 or whole.

    Unlike Pillow, simplejpeg needs Python's lock for none of this, so that threads do not wait for each other, and it tells
    damaged data, of which Pillow shows what there is. Raises ValueError.
    """
    height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    check_size(width, height)
    if colours in ("CMYK", "YCCK"):  # simplejpeg only checks these; Pillow knows their ways
        simplejpeg.decode_jpeg(data, "CMYK", min_height=1, min_width=1)
        image = to_rgb(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
        return image, image.size, 1
    side = min(width, height, box or math.inf)
    scale = next((scale for scale in (8, 4, 2) if wanted and side >= scale * wanted), 1)
    pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=math.ceil(height / scale), min_width=math.ceil(width / scale))
    image, filled = Image.fromarray(pixels), (width / scale, height / scale)
    if has_metadata(data):
        image.info = Image.open(io.BytesIO(data)).info
        upright = ImageOps.exif_transpose(image)
        if upright.size != image.size:
            filled = filled[::-1]
        image = upright
    return image, filled, scale


def has_metadata(data):
    """Whether a JPEG has an APP1 segment, which is where EXIF and XMP say how the camera was held."""
    at = 2
    while data[at:at + 1] == b"\xff" and data[at + 1] != 0xDA:  # until the scan begins
        if data[at + 1] == 0xE1:
            return True
        at += 2 + int.from_bytes(data[at + 2:at + 4], "big")
    return False


def reason(error):
    """Why a picture was skipped, in words."""
    if isinstance(error, UnidentifiedImageError):
        return "not a picture, or cut short"
    if isinstance(error, Image.DecompressionBombError):
        return f"more pixels than the {Image.MAX_IMAGE_PIXELS:,} that are safe to decode"
    return f"{error}" or type(error).__name__
