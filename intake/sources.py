"""Where photos come from: finding the pictures in folders and .zip files, and reading their bytes, whoever made them."""
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
BUILTIN = "skimage.data.lfw_subset()"  # the source of the built-in faces, in a manifest
CELEBA, ATTRIBUTES = "img_align_celeba", "list_attr_celeba.txt"
JOBS, DEPTH = Path("/root/paddlejob/workspace/train_data/datasets"), 5  # AI Studio's other place; folders within folders
MAX_BYTES = 256 * 2**20  # of one picture file
MAX_UNPACKED = 100  # times the size of a .zip file, or 1 GiB: photos hardly shrink in one


def find(name, fits):
    """The first path of this name for which `fits(path)` holds, here or among AI Studio's mounted data sets; None where there is
    none.

    They lie in ~/data/data<number>/, ~/data/datasets/<number>/<name>/ or deeper, or below JOBS; what is nearer comes first.
    """
    if fits(Path(name)):
        return Path(name)
    folders = [Path.home() / "data", JOBS]
    for _ in range(DEPTH):
        entries = []
        for folder in folders:
            with suppress(OSError), os.scandir(folder) as inside:  # one that is not there, or not for us
                entries += sorted(inside, key=lambda entry: entry.name)
        found = [path for entry in entries if entry.name == name and fits(path := Path(entry.path))]
        if found:
            return found[0]
        folders = [entry.path for entry in entries if entry.is_dir()]
    return None


def find_input():
    """Where CelebA's pictures are: a list of one path, or an empty one.
    An archive is read faster than a folder of as many files."""
    found = find(CELEBA + ".zip", Path.is_file) or find(CELEBA, holds_pictures)
    return [found] if found else []


def holds_pictures(folder):
    """Whether there are pictures right in a folder. (Unpacked twice, it lies in another of the same name.)"""
    return folder.is_dir() and any(entry.name.endswith(".jpg") for entry in islice(os.scandir(folder), 1000))


class Picture(NamedTuple):
    """One picture of the input: its name within it, and a function that reads its bytes."""

    name: str
    read: Callable[[], bytes]


def list_pictures(paths, flag="--input"):
    """Every picture in folders (searched recursively, by name) and .zip files (in their own order).

    Raises UserError, which names `flag`, for any other path, and for what pretreat.py has packed.
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
    """Whether a path within the input is a picture's and not hidden, nor one of macOS's shadows."""
    return name.lower().endswith(PICTURES + OTHER_PICTURES) and not any(
        part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def pictures_in_folder(folder, flag):
    """Its pictures and those of its folders, sorted by name; pipes and the like are passed over."""
    pictures = []
    for place, folders, names in os.walk(folder):
        if {"faces.npy", "manifest.json"} <= set(names):
            raise UserError(f"{flag} {folder}: {place} holds faces that pretreat.py has packed, not photos; name the folder "
                            "of the photos alone")
        folders.sort()
        inside = Path(place).relative_to(folder).as_posix()
        for file_name in sorted(names):
            name = file_name if inside == "." else f"{inside}/{file_name}"
            path = os.path.join(place, file_name)
            if is_wanted(name) and os.path.isfile(path):
                pictures.append(Picture(name, lambda path=path: read_file(path, MAX_BYTES)))
    return pictures


def pictures_in_zip(path, flag):
    """Its pictures, in its own order; the file stays open for reading them. Raises UserError for a damaged or crafted one."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, RuntimeError, UnicodeError, NotImplementedError) as error:  # of a version unknown to Python, say
        raise UserError(f"{flag} {path}: neither a folder nor a readable .zip file ({error}); fetch or pack it again") from None
    entries, size = archive.infolist(), os.path.getsize(path)
    if sum(entry.compress_size for entry in entries) > size:
        raise UserError(f"{flag} {path}: its files overlap, as no program packs them; fetch or pack it again")
    if sum(entry.file_size for entry in entries) > max(2**30, MAX_UNPACKED * size):
        raise UserError(f"{flag} {path}: would be more than {MAX_UNPACKED} times as large unpacked, as photos never are; "
                        "fetch or pack it again")
    return [Picture(name, lambda entry=entry: read_entry(archive, entry))
            for entry in entries if is_wanted(name := entry_name(entry))]


def entry_name(entry):
    """A zip entry's name; where the archive does not say that it is UTF-8, it may be that all the same, or Chinese GBK."""
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
    """The bytes of a zip entry. Raises ValueError where it is no ordinary file, encrypted, or too large for a photo."""
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):  # 0: packed where files have no such modes
        raise ValueError("a link or a device in the .zip file")
    if entry.flag_bits & 0x1:
        raise ValueError("encrypted in the .zip file")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # Python unpacks others however much they hold
        raise ValueError("packed in the .zip file by an unusual method")
    if entry.file_size > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES >> 20} MiB")
    with archive.open(entry) as file:
        return file.read(entry.file_size)  # and no more, whatever it says of its size
