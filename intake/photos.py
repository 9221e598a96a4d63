"""Decoding photos of any kind safely, and cutting a face picture out of each."""
import io
import math
import struct
import threading
import warnings
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from intake.detection import MARGIN, align_face, find_faces

FORMATS = ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000"]  # no others: EPS would start Ghostscript
CELEBA_PROPORTION = 178 / 218
MIN_SIDE, MAX_SIDE = 8, 65_535  # px; a smaller picture shows no face
MAX_EXIF, MAX_EXIFS = 2**18, 8  # bytes of EXIF; its segments in a JPEG
MAX_TILES, MAX_CHANNELS = 4096, 4  # of a JPEG 2000
MAX_PIXELS = Image.MAX_IMAGE_PIXELS  # of one picture, and of all that are being decoded at the same time
MAX_SCANNED = 12 * MAX_PIXELS  # a JPEG's pixels times its scans; a progressive one has about ten scans

try:
    from PIL import AvifImagePlugin

    FORMATS += ["AVIF"] * AvifImagePlugin.SUPPORTED
except ImportError:  # Pillow before 11.3
    pass
try:
    import pillow_heif

    pillow_heif.register_heif_opener()
    FORMATS += ["HEIF"]
except ImportError:
    pass

warnings.filterwarnings("ignore", module="PIL")  # the reason is given where a picture is skipped


class Metered(io.BytesIO):
    """The bytes of a file for Pillow, with a limit on reading.

    Crafted files make Pillow read the same places thousands of times, or byte by byte for hours.
    """

    def __init__(self, data):
        super().__init__(data)
        self.bytes_left, self.reads_left = 2 * len(data) + 2**24, 50_000

    def read(self, size=-1):
        data = super().read(size)
        self.bytes_left -= len(data)
        self.reads_left -= 1
        if self.bytes_left < 0 or self.reads_left < 0:
            raise ValueError("takes too long to read")
        return data


def open_image(data):
    """A picture opened by Pillow, not decoded yet. Raises an exception for one that is not safe to decode."""
    image = Image.open(Metered(data), formats=FORMATS)
    if len(image.info.get("exif") or b"") > MAX_EXIF:
        raise ValueError("more EXIF than cameras write")
    if image.format == "TIFF":
        check_size(*(max(MIN_SIDE, image.tag_v2.get(tag, 0)) for tag in (322, 323)))  # of a tile, for Pillow decodes whole tiles
    if image.format == "JPEG2000":
        check_codestream(data)
    return image


def check_codestream(data):
    """Raises ValueError for a JPEG 2000 with so many channels or tiles that their tables would take gigabytes."""
    at = data.find(b"\xff\x4f\xff\x51") + 8
    right, lower, _, _, width, height = struct.unpack_from(">6I", data, at)
    if int.from_bytes(data[at + 32:at + 34], "big") > MAX_CHANNELS or -(-right // width) * -(-lower // height) > MAX_TILES:
        raise ValueError("too many channels or tiles")


def to_rgb(image):
    """Any picture as 8-bit RGB: 16-bit grey is scaled down, transparent parts become white."""
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it at 255
        grey = np.asarray(image).clip(0, 65535) // 257
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        opaque = Image.new("RGB", image.size, "white")
        opaque.paste(image, mask=image.getchannel("A"))
        return opaque
    return image if image.mode == "RGB" else image.convert("RGB")


class Crop(NamedTuple):
    """Which part of a picture becomes a face.

    celeba  width → size, then the box (0, 10)–(64, 74), scaled with size / 64: the face in an aligned CelebA picture
    center  the largest centred square, or with `box` the centred square of so many px
    auto    celeba for pictures of CelebA's proportions (178:218, within 1%), else center
    face    each face that is found, with `margin` px of 64 around it (see intake/detection.py)
    """

    kind: str = "auto"
    box: int | None = None
    margin: int = MARGIN

    def __str__(self):
        return self.kind + (f" {self.box}" if self.box else f" {self.margin}" if self.kind == "face" else "")


def crop_box(image, filled, scale, size, crop):
    """A part of an upright RGB picture → a face, uint8 [size, size, 3]. Raises ValueError where the picture is too small for it.

    filled  width and height in px of the part that the photo fills, from the upper left on
    scale   px of the file that one px of the picture stands for
    crop    a Crop of another kind than face

    Pillow cuts and resizes in one step, bilinearly with antialiasing.
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


class Budget:
    """A number of pixels that may be decoded at the same time, by all threads together."""

    def __init__(self, pixels):
        self.free, self.changed = pixels, threading.Condition()

    @contextmanager
    def taking(self, pixels):
        """Waits until so many pixels are free; inside the block they are taken."""
        with self.changed:
            self.changed.wait_for(lambda: self.free >= pixels)
            self.free -= pixels
        try:
            yield
        finally:
            with self.changed:
                self.free += pixels
                self.changed.notify_all()


DECODING = Budget(MAX_PIXELS)


def cut_faces(data, size, crop):
    """The bytes of a picture file → its faces: one, or with --crop face all that are found.

    Returns a list of faces, uint8 [size, size, 3]; a list of the share of each that lies beyond the picture's edges and was
    filled by reflection; and a list of reasons why others were left out. Raises an exception that says what is wrong with the
    file.
    """
    if crop.kind != "face":
        return [decode(data, size, crop)], [0], []
    with decoded(data) as (image, _, _):
        faces, shares, reasons = [], [], []
        for points in find_faces(image):
            try:
                face, share = align_face(image, points, size, crop.margin)
                faces.append(face)
                shares.append(share)
            except ValueError as error:
                reasons.append(str(error))
    return faces, shares, reasons if faces or reasons else ["no face found"]


def decode(data, size, crop):
    """The bytes of a picture file → a face, uint8 [size, size, 3]. Raises an exception that says what is wrong with them."""
    # The face from a picture decoded at 1.25 times its size has a PSNR of 44 dB against that from one decoded whole. Saving it as
    # a JPEG once more would add ten times that error.
    with decoded(data, math.ceil(1.25 * size), crop.box) as picture:
        return crop_box(*picture, size, crop)


@contextmanager
def decoded(data, wanted=None, box=None):
    """Yields the picture in the bytes of a file: upright RGB, with `filled` and `scale` as in `crop_box`.

    A JPEG may be decoded smaller, such that the shorter side, or `box` px of the file, has at least `wanted` px. All threads
    together decode no more than MAX_PIXELS at once.
    """
    if not data:
        raise ValueError("empty file")
    if data.startswith(b"\xff\xd8"):
        with decoded_jpeg(data, wanted, box) as picture:
            yield picture
        return
    if data[4:8] == b"ftyp":
        kind, package = ("AVIF", "pillow>=11.3") if data[8:11] == b"avi" else ("HEIF", "pillow-heif")
        if kind not in FORMATS:
            raise ValueError(f"{kind}, which needs a package; type: pip install -U \"{package}\"")
    image = open_image(data)
    check_size(*image.size)
    with DECODING.taking(image.width * image.height):
        ImageOps.exif_transpose(image, in_place=True)
        image = to_rgb(image)
        yield image, image.size, 1


def check_size(width, height):
    """Raises ValueError for a picture that is too small to show a face or too large to be decoded safely."""
    if min(width, height) < MIN_SIDE:
        raise ValueError(f"only {width}×{height} px")
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise ValueError(f"{width}×{height} px; more than {MAX_PIXELS:,} in all are not safe to decode")


@contextmanager
def decoded_jpeg(data, wanted, box):
    """`decoded` for a JPEG, which is decoded at 1/8, 1/4, 1/2 or its whole size.

    Unlike Pillow, simplejpeg decodes without Python's global lock, so that threads do not wait for each other, and it raises
    ValueError for damaged data, of which Pillow decodes a part.
    """
    height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    check_size(width, height)
    # These markers do not occur in compressed data, where 0 or a restart marker follows 0xff. Those in a thumbnail count, too.
    has_metadata, progressive, scans = b"\xff\xe1" in data, b"\xff\xc2" in data, data.count(b"\xff\xda")
    if scans * width * height > MAX_SCANNED or data.count(b"Exif\0\0") > MAX_EXIFS:
        raise ValueError(f"{width}×{height} px in {scans} scans take too long to decode")
    unusual = colours in ("CMYK", "YCCK")
    side = min(width, height, box or math.inf)
    scale = next((scale for scale in (8, 4, 2) if wanted and side >= scale * wanted and not unusual), 1)
    with DECODING.taking(width * height // (1 if progressive else scale ** 2)):  # a progressive one is kept whole
        if unusual:  # simplejpeg only checks the data; Pillow converts the colours
            simplejpeg.decode_jpeg(data, "CMYK", min_height=1, min_width=1)
            image = to_rgb(ImageOps.exif_transpose(open_image(data)))
            yield image, image.size, 1
            return
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=math.ceil(height / scale), min_width=math.ceil(width / scale))
        image, filled = Image.fromarray(pixels), (width / scale, height / scale)
        if has_metadata:
            image.info = open_image(data).info
            upright = ImageOps.exif_transpose(image)
            if upright.size != image.size:
                filled = filled[::-1]
            image = upright
        yield image, filled, scale


def reason(error):
    """Why a picture was skipped, as a phrase."""
    if isinstance(error, UnidentifiedImageError):
        return "not a picture that can be read, or truncated"
    if isinstance(error, Image.DecompressionBombError):
        return f"more pixels than the {MAX_PIXELS:,} that are safe to decode"
    return f"{error}".strip() or type(error).__name__
