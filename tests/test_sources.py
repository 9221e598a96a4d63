"""Crafted archives and pictures: made to run forever, to fill the memory, or to start other programs."""
from support.cli import UserError

import os
import stat
import zipfile

import numpy as np
import pytest

import pretreat
from intake import photos, sources
from pictures import picture, zipped


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


def test_entries_that_are_no_ordinary_files(tmp_path):
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
        assert result.status in (0, 2) and "Traceback" not in result.err, number
        assert result.err.count("\n") == (result.status == 2), number


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
