"""Finding the pictures in folders and .zip files, which may be damaged or crafted, and reading their bytes."""
from support.cli import UserError

import os
import stat
import zipfile
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from support.files import read_file

PICTURES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif",
            ".heic", ".heif")
OTHER_PICTURES = (".jxl", ".svg", ".psd", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".tga", ".ico",
                  ".eps", ".ai")
BUILTIN = "the pretrained generator"  # the source of the built-in faces, in a manifest
CELEBA, ATTRIBUTES = "img_align_celeba", "list_attr_celeba.txt"
JOBS = Path("/root/paddlejob/workspace/train_data/datasets")  # where AI Studio mounts data sets for jobs
MAX_DEPTH = 5  # of folders within folders that are searched
MAX_BYTES = 256 * 2**20  # of one picture file
MAX_UNPACKED = 100  # times the size of a .zip file, or 1 GiB: a .zip file makes photos hardly smaller


def find(name, fits):
    """The first path of this name for which `fits(path)` holds, here or among AI Studio's mounted data sets; else None.

    The data sets are in ~/data/data<number>/, ~/data/datasets/<number>/<name>/ or deeper, or below JOBS. Paths of fewer folders
    come first.
    """
    if fits(Path(name)):
        return Path(name)
    folders = [Path.home() / "data", JOBS]
    for _ in range(MAX_DEPTH):
        entries = []
        for folder in folders:
            with suppress(OSError), os.scandir(folder) as inside:  # one that is missing or may not be read
                entries += sorted(inside, key=lambda entry: entry.name)
        found = [path for entry in entries if entry.name == name and fits(path := Path(entry.path))]
        if found:
            return found[0]
        folders = [entry.path for entry in entries if entry.is_dir()]
    return None


def find_input():
    """Where CelebA's pictures are: a list of one path, or an empty one.

    An archive comes first, for it is read faster than a folder of as many files.
    """
    found = find(CELEBA + ".zip", Path.is_file) or find(CELEBA, holds_pictures)
    return [found] if found else []


def holds_pictures(folder):
    """Whether a folder itself holds pictures. (An archive unpacked twice is a folder in a folder of the same name.)"""
    return folder.is_dir() and any(entry.name.endswith(".jpg") for entry in islice(os.scandir(folder), 1000))


class Picture(NamedTuple):
    """One picture of the input: its name there, and a function that reads its bytes."""

    name: str
    read: Callable[[], bytes]


def list_pictures(paths, flag="--input"):
    """Every picture in folders (with those in them, sorted by name) and .zip files (in the order of their entries).

    Raises UserError, which names `flag`, for any other path, and for packed faces.
    """
    pictures = []
    for path in map(Path, dict.fromkeys(paths)):
        if path.is_dir():
            pictures += pictures_in_folder(path, flag)
        elif path.is_file():
            pictures += pictures_in_zip(path, flag)
        elif path.exists():
            raise UserError(f"{flag} {path}: neither a folder nor a .zip file")
        else:
            raise UserError(f"{flag} {path}: no such folder or .zip file")
    return pictures


def is_wanted(name):
    """Whether a path within the input is a picture's, neither hidden nor one of the extra files of macOS."""
    return name.lower().endswith(PICTURES + OTHER_PICTURES) and not any(
        part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def pictures_in_folder(folder, flag):
    """The pictures in a folder and its folders, sorted by name; pipes and the like are ignored."""
    pictures = []
    for place, folders, names in os.walk(folder):
        if {"faces.npy", "manifest.json"} <= set(names):
            raise UserError(f"{flag} {folder}: {place} holds packed faces of pretreat.py, not photos; name a folder that holds "
                            "photos alone")
        folders.sort()
        inside = Path(place).relative_to(folder).as_posix()
        for file_name in sorted(names):
            name = file_name if inside == "." else f"{inside}/{file_name}"
            path = os.path.join(place, file_name)
            if is_wanted(name) and os.path.isfile(path):
                pictures.append(Picture(name, lambda path=path: read_file(path, MAX_BYTES)))
    return pictures


def pictures_in_zip(path, flag):
    """The pictures in a .zip file, in the order of its entries; the file stays open. Raises UserError for a damaged or crafted
    one."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, RuntimeError, UnicodeError, NotImplementedError) as error:  # the last for a newer version
        raise UserError(f"{flag} {path}: neither a folder nor a readable .zip file ({error}); fetch or pack it again") from None
    entries, size = archive.infolist(), os.path.getsize(path)
    if sum(entry.compress_size for entry in entries) > size:
        raise UserError(f"{flag} {path}: its files overlap, which no packing program does; fetch or pack it again")
    if sum(entry.file_size for entry in entries) > max(2**30, MAX_UNPACKED * size):
        raise UserError(f"{flag} {path}: would be more than {MAX_UNPACKED} times as large when unpacked, which photos never are; "
                        "fetch or pack it again")
    return [Picture(name, lambda entry=entry: read_entry(archive, entry))
            for entry in entries if is_wanted(name := entry_name(entry))]


def entry_name(entry):
    """A .zip entry's name. Without the flag for UTF-8 it may still be UTF-8, or Chinese GBK."""
    name = entry.filename
    if not entry.flag_bits & 0x800:
        for encoding in ("utf-8", "gbk"):
            try:
                name = entry.filename.encode("cp437").decode(encoding)
                break
            except UnicodeError:
                pass
    return PurePosixPath(name).as_posix()  # "./a.jpg" is a.jpg


def read_entry(archive, entry):
    """The bytes of a .zip entry. Raises ValueError where it is no ordinary file, encrypted, or too large for a photo."""
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):  # 0: packed on a system without these modes
        raise ValueError("a link or a device in the .zip file")
    if entry.flag_bits & 0x1:
        raise ValueError("encrypted in the .zip file")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others Python unpacks without a limit
        raise ValueError("packed in the .zip file by an unusual method")
    if entry.file_size > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES >> 20} MiB")
    with archive.open(entry) as file:
        return file.read(entry.file_size)  # no more than the size that it states
