"""Photos from strangers: archives and pictures that are made to hang, to fill the memory, or to start other programs."""
import io
import json
import os
import resource
import stat
import struct
import threading
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

import files
import photos
import pretreat
from intake import sources
from runtime import UserError


def encoded(image, kind="png", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(number=0, kind="png", **options):
    return encoded(Image.fromarray(np.random.default_rng(number).integers(0, 256, (20, 20, 3), np.uint8)), kind, **options)


def zipped(path, *members, method=zipfile.ZIP_STORED):
    """A .zip file of (name or ZipInfo, bytes)."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def with_mode(name, mode):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = mode << 16
    return entry


def patched(path, name, at, value):
    """In the list of a .zip file's members, sets the 4 bytes at `at` of the entry called `name`."""
    data = bytearray(path.read_bytes())
    start = data.rfind(name.encode()) - 46
    data[start + at:start + at + 4] = value.to_bytes(4, "little")
    path.write_bytes(data)
    return path


def reasons(path):
    """Why the pictures of an archive were left out, by name; None for those that were not."""
    cuts = [pretreat.cut_picture(picture, 16, photos.Crop()) for picture in sources.list_pictures([path])]
    return {cut.picture: None if cut.faces else cut.reasons[0] for cut in cuts}


def test_members_that_are_no_ordinary_files(tmp_path):
    members = [(with_mode("link.png", stat.S_IFLNK | 0o777), b"/dev/zero"), (with_mode("zero.png", stat.S_IFCHR | 0o666), b""),
               (with_mode("pipe.png", stat.S_IFIFO | 0o666), b""), (with_mode("good.png", stat.S_IFREG | 0o644), picture()),
               ("plain.png", picture(1)), ("./dot.png", picture(2)), ("a/./b.png", picture(3)), ("../up.png", picture(4))]
    found = reasons(zipped(tmp_path / "a.zip", *members))
    assert found.pop("link.png") == found.pop("zero.png") == found.pop("pipe.png") == "a link or a device in the .zip file"
    assert found == {"good.png": None, "plain.png": None, "dot.png": None, "a/b.png": None}


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_python_unpacks_without_a_bound(tmp_path, method):
    path = zipped(tmp_path / "a.zip", ("a.png", bytes(10**7)), method=method)
    assert "unusual method" in reasons(path)["a.png"]


def test_a_member_that_lies_about_its_size_is_not_unpacked_beyond_it(tmp_path):
    path = patched(zipped(tmp_path / "a.zip", ("a.png", bytes(10**8)), method=zipfile.ZIP_DEFLATED), "a.png", 24, 1000)
    [entry] = zipfile.ZipFile(path).infolist()
    assert entry.file_size == 1000
    assert reasons(path)["a.png"]  # its checksum is wrong, or it is no picture


def test_archives_that_only_an_attacker_makes(tmp_path):
    """Overlapping members, and such as would be far larger unpacked."""
    path = zipped(tmp_path / "a.zip", *((f"{i}.png", picture(i)) for i in range(50)))
    for i in range(1, 50):
        patched(path, f"{i}.png", 42, 0)  # all where the first is
        patched(path, f"{i}.png", 20, len(path.read_bytes()) // 2)
    with pytest.raises(UserError, match="overlap"):
        sources.list_pictures([path])
    path = zipped(tmp_path / "b.zip", ("a.png", bytes(10**6)), method=zipfile.ZIP_DEFLATED)
    for size in (2**31, 2**32 - 2):
        with pytest.raises(UserError, match="unpacked"):
            sources.list_pictures([patched(path, "a.png", 24, size)])


def test_fifty_damaged_archives_are_a_sentence_or_lose_a_picture(tmp_path, command):
    good = zipped(tmp_path / "good.zip", *((f"{i}.png", picture(i)) for i in range(4))).read_bytes()
    start = good.index(b"PK\x01\x02")
    changed = [good[:length] for length in (0, 3, 4, 30, 100, start, start + 20, len(good) - 22, len(good) - 1)]
    for place in np.linspace(start, len(good) - 1, 60).astype(int):
        changed.append(good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1:])
    for number, data in enumerate(changed):
        path = tmp_path / f"{number}.zip"
        path.write_bytes(data)
        result = command(pretreat, "--input", path, "--out", tmp_path / "imgs", "--size", 8)
        assert result.status in (0, 2) and "Traceback" not in result.err and result.err.count("\n") == (result.status == 2), number


def test_pipes_and_devices_are_not_waited_for(tmp_path, command):
    os.mkfifo(tmp_path / "pipe.zip")
    for path in (tmp_path / "pipe.zip", "/dev/zero"):
        result = command(pretreat, "--input", path, "--out", tmp_path / "imgs")
        assert result.status == 2 and "neither a folder nor a .zip file" in result.err
    (tmp_path / "photos").mkdir()
    os.mkfifo(tmp_path / "photos" / "a.png")
    assert sources.list_pictures([tmp_path / "photos"]) == []
    with pytest.raises(ValueError, match="not a file"):  # it took the place of a picture
        sources.read_file(tmp_path / "photos" / "a.png", 100)


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 50 50
%%EndComments
0 0 50 50 rectfill
showpage
"""


def test_only_formats_of_photos_are_opened(tmp_path, monkeypatch):
    """An EPS would start Ghostscript, whatever it is called."""
    called = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: called.append(1) or Image.new("RGB", (50, 50)))
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: called.append(1))
    for kind, data in {"eps": EPS, "icns": encoded(Image.new("RGB", (32, 32)), "icns"), "pcx": encoded(Image.new("RGB", (32, 32)), "pcx"),
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
    """Each scan goes over the whole picture, however short it is."""
    data = encoded(Image.new("RGB", (2000, 2000)), "jpeg", progressive=True)
    last = data.rindex(b"\xff\xda")
    assert photos.decode(data, 16, photos.Crop()).shape == (16, 16, 3)
    bomb = data[:-2] + data[last:-2] * 1000 + data[-2:]
    with pytest.raises(ValueError, match="scans"):
        photos.decode(bomb, 16, photos.Crop())


def tiff(tags, width=64, height=64):
    """A grey TIFF of one black strip, with further entries (tag, type, count, value or offset) in its directory, and 1 MB behind it."""
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


def test_what_pretreat_packed_is_no_input(tmp_path, command):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(picture())
    arguments = ("--size", 8, "--holdout", 0)
    assert command(pretreat, "--input", tmp_path / "photos", "--out", tmp_path / "photos" / "imgs", *arguments).status == 0
    before = (tmp_path / "photos" / "imgs" / "manifest.json").read_bytes()
    for source, out in (("photos", "photos/imgs"), ("photos/imgs", "photos/imgs"), ("photos", "others")):
        result = command(pretreat, "--input", tmp_path / source, "--out", tmp_path / out, *arguments)
        assert result.status == 2 and "faces that pretreat.py has packed" in result.err, result.out
    assert (tmp_path / "photos" / "imgs" / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("content", [{"preview.png": b"mine"}, {"manifest.json": b"{}"}, {"manifest.json": b"mine", "faces.npy": b"mine"},
                                     {"labels.npy": b"1"}, {".writing-faces.npy": b"1"}])
def test_files_of_the_user_that_are_named_like_ours_stay(tmp_path, command, content):
    (tmp_path / "imgs").mkdir()
    for name, data in content.items():
        (tmp_path / "imgs" / name).write_bytes(data)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(picture())
    result = command(pretreat, "--input", tmp_path / "photos", "--out", tmp_path / "imgs", "--size", 8)
    assert result.status == 2 and "folder of its own" in result.err
    assert {path.name: path.read_bytes() for path in (tmp_path / "imgs").iterdir()} == content


def test_a_link_in_the_way_is_not_written_through(tmp_path, command):
    """Somebody else's folder may come with links where ours are to be: to files of the user's."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("mine")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(picture())
    for link in ("imgs.partial", "imgs"):
        (tmp_path / link).symlink_to(tmp_path / "precious")
        result = command(pretreat, "--input", tmp_path / "photos", "--out", tmp_path / "imgs", "--size", 8)
        assert result.status == 2 and ("a link" in result.err or "other files" in result.err)
        (tmp_path / link).unlink()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "imgs").symlink_to(tmp_path / "elsewhere")  # the user's own, to another disk, say
    assert command(pretreat, "--input", tmp_path / "photos", "--out", tmp_path / "imgs", "--size", 8).status == 0
    assert (tmp_path / "imgs").is_symlink() and (tmp_path / "elsewhere" / "faces.npy").exists()
    (tmp_path / ".writing-a.txt").symlink_to(tmp_path / "precious" / "thesis.txt")
    with files.replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "mine" and (tmp_path / "a.txt").read_text() == "new"


def test_what_a_killed_run_left_is_not_packed_along(tmp_path, command):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(picture())
    partial = tmp_path / "imgs.partial"
    partial.mkdir()
    (partial / ".unfinished").touch()
    for name in ("labels.npy", ".writing-preview.png", "faces.npy"):
        (partial / name).write_bytes(b"old")
    assert command(pretreat, "--input", tmp_path / "photos", "--out", tmp_path / "imgs", "--size", 8).status == 0
    assert sorted(os.listdir(tmp_path / "imgs")) == ["faces.npy", "manifest.json", "preview.png"]
    assert sorted(os.listdir(tmp_path)) == ["imgs", "photos"]


def test_the_same_photo_counts_once(tmp_path, command):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(picture(1))
    zipped(tmp_path / "b.zip", ("c.png", picture(1)), ("d.png", picture(2)))
    result = command(pretreat, "--input", tmp_path / "photos", tmp_path / "b.zip", "--out", tmp_path / "imgs", "--size", 8)
    manifest = json.loads((tmp_path / "imgs" / "manifest.json").read_text())
    assert result.status == 0 and manifest["names"] == ["a.png", "d.png"]
    again = command(pretreat, "--input", tmp_path / "b.zip", tmp_path / "b.zip", "--out", tmp_path / "imgs", "--size", 8)
    assert "kept 2, skipped 0" in again.out
    assert manifest["skipped"] == [{"name": "c.png", "reason": "the same file as a.png"}]


def test_pictures_that_cannot_be_read_here_are_listed(tmp_path, command, monkeypatch):
    (tmp_path / "photos").mkdir()
    heic = b"\x00\x00\x00\x18ftypheic" + bytes(100)
    for name, data in {"a.png": picture(), "b.heic": heic, "c.CR2": b"II*\x00", "d.psd": b"8BPS", "e.txt": b"text"}.items():
        (tmp_path / "photos" / name).write_bytes(data)
    monkeypatch.setattr(photos, "FORMATS", [kind for kind in photos.FORMATS if kind != "HEIF"])
    result = command(pretreat, "--input", tmp_path / "photos", "--out", tmp_path / "imgs", "--size", 8)
    skipped = {entry["name"]: entry["reason"] for entry in json.loads((tmp_path / "imgs" / "manifest.json").read_text())["skipped"]}
    assert "kept 1, skipped 3" in result.out and set(skipped) == {"b.heic", "c.CR2", "d.psd"} and "pillow-heif" in skipped["b.heic"]


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_what_telephones_take(kind):
    if kind not in photos.FORMATS:
        pytest.skip(f"{kind} is not read here")
    data = encoded(Image.new("RGB", (64, 64), (200, 30, 30)), kind, quality=90)
    assert abs(photos.decode(data, 16, photos.Crop()).astype(int) - (200, 30, 30)).max() < 12


def test_a_name_cannot_steer_the_terminal(tmp_path, command):
    path = zipped(tmp_path / "a.zip", ("a\x1b[2J\n.png", b"no picture"))
    result = command(pretreat, "--input", path, "--out", tmp_path / "imgs")
    assert result.status == 2 and "\x1b" not in result.err and result.err.count("\n") == 1 and "a\\x1b[2J\\n.png" in result.err


def test_the_pixels_are_in_the_fingerprint(tmp_path, command):
    """Other pictures under the same names are another data set."""
    from dataReader import DataReader

    (tmp_path / "photos").mkdir()
    found = set()
    for number in (1, 2):
        (tmp_path / "photos" / "a.png").write_bytes(picture(number))
        assert command(pretreat, "--input", tmp_path / "photos", "--out", tmp_path / "imgs", "--size", 8, "--holdout", 0).status == 0
        found.add(DataReader(tmp_path / "imgs", 1).fingerprint())
    assert len(found) == 2
