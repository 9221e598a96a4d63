"""Writing files so that a killed process leaves the old content or the new, never a part of it."""
from support.cli import UserError, printable

import ctypes
import errno
import json
import os
import shutil
import stat
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

RENAME_EXCHANGE = 2  # from Linux's renameat2(2)
AT_FDCWD = -100


@contextmanager
def replacing(path, durable=True):
    """Yields a temporary path with the same ending; when the block succeeds, that file takes the place of `path`.

    When the block fails or the process is killed, `path` is as it was. With `durable` it also waits for the disk, so that this
    holds when the machine itself fails; for thousands of small pictures that takes too long.
    """
    path = Path(path)
    temporary = path.with_name(f".writing-{path.name}")
    temporary.unlink(missing_ok=True)  # left by a process that was killed; if it is a link, its target would be written
    try:
        yield temporary
        if durable:
            flush(temporary)
        os.replace(temporary, path)
        if durable:
            flush(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def claim(folder, hint="wait for it, or name another --out"):
    """Inside the block the folder belongs to this process alone; the system ends the claim when the process dies.

    Raises UserError, with the `hint`, where another process has claimed it. Does nothing on Windows and on file systems without
    locks.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            os.close(descriptor)
            raise UserError(f"{folder}: another command is writing there; {hint}") from None
    try:
        yield
    finally:
        os.close(descriptor)


def sweep(*folders):
    """Deletes unfinished files of processes that died, in folders that this process has claimed."""
    for folder in folders:
        for unfinished in Path(folder).glob(".writing-*"):
            unfinished.unlink(missing_ok=True)


def check_own(folder, flag, names, is_ours):
    """Raises UserError where a `folder` that will be replaced holds other files than those of this program.

    Its files must have these `names`, and `is_ours(folder)` must be true. The folder may be empty or missing.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{flag} {folder}: is a file; name a folder")
    found = {path.name.removeprefix(".writing-") for path in folder.iterdir()} if folder.exists() else set()
    others = sorted(found - names)
    if others or found and not is_ours(folder):
        raise UserError(f"{flag} {folder}: holds other files ({printable((others or sorted(found))[0])}); name a folder "
                        "of its own")


@contextmanager
def rebuilding(folder, flag, names, is_ours):
    """Yields an empty folder beside `folder`; when the block succeeds, it takes the place of `folder` as a whole.

    names    of the files that are made in it; `folder` must hold no others
    is_ours  is_ours(folder) says whether this program made a folder with such files

    When the block fails or the process is killed, `folder` is as it was. Raises UserError, which names `flag`, where other files
    would be lost, or another process is rebuilding it.
    """
    folder = folder.resolve()
    partial = folder.with_name(folder.name + ".partial")
    begun = partial / ".unfinished"
    check_own(folder, flag, names, is_ours)
    if partial.is_symlink():
        raise UserError(f"{flag} {folder}: {partial} is a link; delete it")
    if not begun.exists():  # else a process that was killed has left it
        check_own(partial, flag, names, is_ours)
    partial.mkdir(parents=True, exist_ok=True)
    with claim(partial, f"wait for it, or name another {flag}"):
        try:
            for left in partial.iterdir():
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
            begun.touch()
            yield partial
            check_own(folder, flag, names, is_ours)  # once more, for the block may have taken hours
            begun.unlink()
            replace_folder(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def read_file(path, most):
    """The bytes of a file, at most `most`. Raises OSError, and ValueError where it is larger or no ordinary file, such as a
    pipe."""
    with open(path, "rb", buffering=0, opener=lambda path, flags: os.open(path, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("not a file")
        if status.st_size > most:
            raise ValueError(f"larger than {most >> 20} MiB")
        return file.read()


def flush(path):
    """Waits until a file, or the list of names in a folder, is on the disk. Does nothing for folders on Windows."""
    if os.name == "nt" and Path(path).is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if Path(path).is_file() else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path, content):
    """Writes `content` as indented UTF-8 JSON, atomically."""
    with replacing(path) as temporary:
        text = json.dumps(content, ensure_ascii=False, indent=1)
        # A file name that is not valid Unicode becomes \\udcXX, which JSON reads back as the same name.
        temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def replace_folder(new, path):
    """Renames the folder `new` to `path` and deletes the folder that was there.

    On Linux the two swap names in one step. Elsewhere the old folder is first renamed to .NAME.before.
    """
    new, path = Path(new), Path(path)
    if not path.exists():
        os.rename(new, path)
    elif exchange(new, path):
        shutil.rmtree(new)
    else:
        aside = path.with_name(f".{path.name}.before")
        shutil.rmtree(aside, ignore_errors=True)  # left by a process that was killed; `path` is newer
        os.rename(path, aside)
        try:
            os.rename(new, path)
        except OSError:
            os.rename(aside, path)
            raise
        shutil.rmtree(aside)
    flush(path.parent)


def exchange(one, other):
    """Swaps two folders in one step; False where the system or the file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    return renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0


def numbered_folder(path):
    """`path` where nothing is there yet, else the first of path-2, path-3, … that is free."""
    path, number = Path(path), 2
    free = path
    while free.exists():
        free = path.with_name(f"{path.name}-{number}")
        number += 1
    return free
