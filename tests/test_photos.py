"""Decoding pictures, also such as are made to hang, to fill the memory, or to start other programs; cutting faces out."""

import io
import resource
import struct
import threading
import time

import numpy as np
import pytest
from PIL import Image

import pretreat
from intake import photos, sources
from pictures import colours, encoded, picture


def whole(picture, size, crop):
    return photos.crop_box(picture, picture.size, 1, size, photos.Crop(crop))


@pytest.mark.parametrize("size, scaled_height, top", [(64, 78, 10), (128, 157, 20)])
def test_celeba_crop_is_the_box_below_the_top(size, scaled_height, top):
    picture = colours(178, 218)
    expected = picture.resize((size, scaled_height), Image.BILINEAR).crop((0, top, size, top + size))
    assert np.array_equal(whole(picture, size, "celeba"), np.asarray(expected))


def test_center_crop_is_the_largest_centred_square():
    face = whole(colours(300, 100), 20, "center").astype(int)
    assert face.shape == (20, 20, 3)
    assert abs(face[:, 0, 0].mean() - 255 * 102 / 299) < 3 and abs(face[:, -1, 0].mean() - 255 * 197 / 299) < 3
    assert face[0, :, 1].mean() < 10 and face[-1, :, 1].mean() > 245


@pytest.mark.parametrize("size, same_as", [
    ((178, 218), "celeba"), ((89, 109), "celeba"), ((200, 250), "center"), ((218, 178), "center")])
def test_auto_crop_goes_by_the_proportions(size, same_as):
    picture = colours(*size)
    other = {"celeba": "center", "center": "celeba"}[same_as]
    assert np.array_equal(whole(picture, 64, "auto"), whole(picture, 64, same_as))
    if size != (218, 178):  # which is not tall enough for the other one
        assert not np.array_equal(whole(picture, 64, "auto"), whole(picture, 64, other))


def transparent_red():
    image = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 10, 20))
    return image


def palette_with_transparency():
    image = Image.new("P", (20, 20), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (10, 0, 20, 20))
    return encoded(image, "png", transparency=1)


def rotated_by_exif():
    image = Image.new("RGB", (20, 20), (0, 0, 255))
    image.paste((255, 0, 0), (0, 10, 20, 20))  # the lower half; orientation 6 turns it to the left
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(image, "png", exif=exif)


def rotated_jpeg(before=b"", mode="RGB"):
    """As `rotated_by_exif`, with another segment before the EXIF one."""
    image = Image.open(io.BytesIO(rotated_by_exif()))
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(image.convert(mode), "jpeg", exif=exif, quality=100, subsampling=0)
    at = data.index(b"\xff\xe1")
    return data[:at] + before + data[at:]


def two_frames():
    red, blue = (Image.new("RGB", (20, 20), colour) for colour in ("red", "blue"))
    return encoded(red, "gif", save_all=True, append_images=[blue])


@pytest.mark.parametrize("data, left, right", [
    (encoded(transparent_red()), (255, 0, 0), (255, 255, 255)),
    (encoded(transparent_red().convert("LA")), (76, 76, 76), (255, 255, 255)),
    (palette_with_transparency(), (255, 0, 0), (255, 255, 255)),
    (encoded(Image.fromarray(np.full((20, 20), 0x8040, np.uint16))), (128, 128, 128), (128, 128, 128)),
    (encoded(Image.new("L", (20, 20), 90)), (90, 90, 90), (90, 90, 90)),
    (encoded(Image.new("1", (20, 20), 1)), (255, 255, 255), (255, 255, 255)),
    (encoded(Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "jpeg", quality=100), (254, 0, 0), (254, 0, 0)),
    (encoded(Image.new("RGB", (20, 20), "red"), "webp", lossless=True), (255, 0, 0), (255, 0, 0)),
    (rotated_by_exif(), (255, 0, 0), (0, 0, 255)),
    (rotated_jpeg(), (254, 0, 0), (0, 0, 254)),
    (rotated_jpeg(before=b"\xff\xe2\x40\x00" + bytes(0x3ffe)), (254, 0, 0), (0, 0, 254)),
    (rotated_jpeg(mode="CMYK"), (254, 0, 0), (0, 0, 254)),
    (two_frames(), (255, 0, 0), (255, 0, 0)),
], ids=["RGBA", "LA", "palette", "16-bit", "grey", "1-bit", "CMYK", "WebP", "EXIF", "EXIF JPEG", "late EXIF JPEG",
        "EXIF CMYK", "GIF"])
def test_every_kind_of_picture_becomes_upright_rgb(data, left, right):
    face = photos.decode(data, 20, photos.Crop("center")).astype(int)
    assert abs(face[10, 2] - left).max() <= 3 and abs(face[10, 17] - right).max() <= 3


def test_draft_decoding_is_not_visible():
    rough = Image.fromarray(np.random.default_rng(0).integers(0, 256, (15, 12, 3), dtype=np.uint8))
    for width, height in ((178, 218), (163, 201), (801, 999)):
        data = encoded(rough.resize((width, height), Image.BICUBIC), "jpeg", quality=95)
        full = whole(Image.open(io.BytesIO(data)), 64, "auto").astype(int)
        difference = photos.decode(data, 64, photos.Crop()).astype(int) - full
        assert 10 * np.log10(255**2 / (difference**2).mean()) > 40  # dB; above that nobody sees it


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 50 50
%%EndComments
0 0 50 50 rectfill
showpage
"""


def test_only_formats_of_photos_are_opened(tmp_path, monkeypatch):
    """An EPS of any name would start Ghostscript."""
    called = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: called.append(1) or Image.new("RGB", (50, 50)))
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: called.append(1))
    for kind, data in {"eps": EPS, "icns": encoded(Image.new("RGB", (32, 32)), "icns"),
                       "pcx": encoded(Image.new("RGB", (32, 32)), "pcx"),
                       "tga": encoded(Image.new("RGB", (32, 32)), "tga"), "pdf": encoded(Image.new("RGB", (32, 32)), "pdf"),
                       "sgi": encoded(Image.new("RGB", (32, 32)), "sgi")}.items():
        cut = pretreat.cut_picture(sources.Picture("a.jpg", lambda data=data: data), 16, photos.Crop())
        assert cut.faces == [] and "not a picture that can be read" in cut.reasons[0], kind
    assert not called


def test_every_thread_together_decodes_no_more_than_is_safe(monkeypatch):
    """Four pictures of 400 px in a budget of 600: one at a time."""
    monkeypatch.setattr(photos, "DECODING", photos.Budget(600))
    at_once, most = [], []
    genuine = photos.to_rgb

    def watched(image):
        at_once.append(1)
        time.sleep(0.02)
        most.append(len(at_once))
        at_once.pop()
        return genuine(image)

    monkeypatch.setattr(photos, "to_rgb", watched)
    threads = [threading.Thread(target=photos.decode, args=(picture(i), 16, photos.Crop())) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4
    with pytest.raises(ValueError, match="not safe to decode"):
        photos.decode(encoded(Image.new("1", (12_000, 12_000))), 16, photos.Crop())
    assert photos.DECODING.free == 600


def test_a_jpeg_of_very_many_scans_is_not_decoded(monkeypatch):
    """Each scan takes a pass over the whole picture, also one of few bytes."""
    data = encoded(Image.new("RGB", (2000, 2000)), "jpeg", progressive=True)
    last = data.rindex(b"\xff\xda")
    assert photos.decode(data, 16, photos.Crop()).shape == (16, 16, 3)
    bomb = data[:-2] + data[last:-2] * 1000 + data[-2:]
    with pytest.raises(ValueError, match="scans"):
        photos.decode(bomb, 16, photos.Crop())


def tiff(tags, width=64, height=64):
    """A grey TIFF of one black strip, with further entries (tag, type, count, value or offset) in its directory,
    and 1 MB behind it."""
    entries = sorted([(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8),
                      (278, 4, 1, height), (279, 4, 1, width * height), *tags])
    start = 8 + width * height
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    return struct.pack("<2sHI", b"II", 42, start) + bytes(width * height) + directory + bytes(10**6)


def jp2(channels, tiles):
    """The head of a JPEG 2000 codestream of 20,000 × 4,000 px: so many channels, in tiles of 20,000 / tiles px width."""
    size = struct.pack(">HHIIIIIIIIH", 38 + 3 * channels, 0, 20_000, 4000, 0, 0, 20_000 // tiles, 4000, 0, 0, channels)
    return b"\xff\x4f\xff\x51" + size + b"\x07\x01\x01" * channels + bytes(1000)


BOMBS = {  # a few bytes each that Pillow would make gigabytes or minutes of
    "bmp, one row of black": lambda: struct.pack("<2sIIIIiiHHIIIIII", b"BM", 62, 0, 62, 40, 11_000_000, 8, 1, 8, 1, 8, 0, 0, 2, 0)
                             + bytes(8) + b"\0\2\xff\7\0\1",
    "tiff, tags that share a place": lambda: tiff([(40_000 + i, 7, 10**6, 8000) for i in range(3000)]),
    "tiff, a tile": lambda: tiff([(322, 4, 1, 20_000), (323, 4, 1, 20_000), (324, 4, 1, 8), (325, 4, 1, 4096)]),
    "jpeg 2000, channels": lambda: jp2(16_384, 1),
    "jpeg 2000, tiles": lambda: jp2(3, 20_000),
    "gif, comments": lambda: picture(kind="gif").replace(b"\x2c\0\0\0\0\x14", b"\x21\xfe\1x\0" * 10**6 + b"\x2c\0\0\0\0\x14", 1),
    "jpeg, exif": lambda: b"\xff\xd8" + (b"\xff\xe1\xff\xf0Exif\0\0" + bytes(65_512)) * 20 + picture(kind="jpeg")[2:],
    "png, exif": lambda: picture(exif=bytes(2**20)),
}


@pytest.mark.parametrize("what", BOMBS)
def test_small_files_that_take_gigabytes_are_not_decoded(what):
    data = BOMBS[what]()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cut = pretreat.cut_picture(sources.Picture("a", lambda: data), 16, photos.Crop())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB
    if what != "tiff, tags that share a place":  # of which Pillow 13 reads no more than there is
        assert not cut.faces and cut.reasons[0]


def test_bytes_that_fill_a_jpeg_hide_nothing():
    """Some may stand between its segments: what comes after, the camera's orientation or the scans, counts all the same."""
    exif = Image.Exif()
    exif[0x0112] = 3
    upright = Image.fromarray(np.linspace(0, 255, 400).reshape(20, 20).astype(np.uint8)).convert("RGB")
    data = encoded(upright, "jpeg", exif=exif, quality=95)
    at = data.index(b"\xff\xe1")
    filled = data[:at] + b"\xff" + data[at:]
    assert (photos.decode(filled, 16, photos.Crop()) == photos.decode(data, 16, photos.Crop())).all()
    assert photos.decode(filled, 16, photos.Crop())[0, 0, 0] > 200  # it is turned upside down


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_pictures_of_telephones(kind):
    if kind not in photos.FORMATS:
        pytest.skip(f"{kind} is not read here")
    data = encoded(Image.new("RGB", (64, 64), (200, 30, 30)), kind, quality=90)
    assert abs(photos.decode(data, 16, photos.Crop()).astype(int) - (200, 30, 30)).max() < 12
