"""Attributes of faces, such as CelebA's forty: reading their list, and what users write about them."""
from support.cli import UserError

import difflib

import numpy as np

from support.files import read_file
from support.schema import Names, checked

MAX_LIST = 2**28  # bytes; CelebA's list has 26 million


def read_list(path):
    """Reads a file in CelebA's format: a count, the attributes' names, then a line for each picture: its name, and -1s and 1s.

    Returns the names and {picture: int8 [names]}. Raises UserError, which names the line that is wrong.
    """
    try:
        lines = read_file(path, MAX_LIST).decode("utf-8-sig").splitlines()
    except UnicodeError:
        raise UserError(f"--attributes {path}: not a text file; name CelebA's list_attr_celeba.txt, or a list like it") from None
    except (OSError, ValueError) as error:
        raise UserError(f"--attributes {path}: cannot be read ({getattr(error, 'strerror', None) or error}); name "
                        "CelebA's list_attr_celeba.txt, or a list like it") from None
    names = lines[1].split() if len(lines) > 1 else []
    if not names or not lines[0].strip().isdigit():
        raise UserError(f"--attributes {path}: is not a list of attributes: a count, then a line with their names")
    checked(names, Names, f"--attributes {path}", "a name has letters, digits, _ and -, 40 at most")
    if len(set(names)) < len(names):
        raise UserError(f"--attributes {path}: names an attribute twice")
    rows = {}
    for number, line in enumerate(lines[2:], start=3):
        picture, *values = line.split() or [""]
        if not picture:
            continue
        if len(values) != len(names) or not set(values) <= {"-1", "1"}:
            raise UserError(f"--attributes {path}: line {number} must have a picture's name and {len(names)} times -1 or 1")
        if picture in rows:
            raise UserError(f"--attributes {path}: line {number} names {picture} for the second time")
        rows[picture] = np.array(values, np.int8)
    return names, rows


def check_name(name, known, flag):
    """Returns `name`, which must be one of the attributes `known`. Raises UserError with the most similar one."""
    if name not in known:
        if not known:
            raise UserError(f"{flag} {name}: the packed faces have no attributes; pack them again with "
                            "pretreat.py --attributes list_attr_celeba.txt")
        similar = difflib.get_close_matches(name, known, n=1, cutoff=0.3) or known[:1]
        raise UserError(f"{flag} {name}: no such attribute; perhaps {similar[0]}? There are: {', '.join(known)}")
    return name


def parse_names(text, known, flag):
    """"Smiling,Male" → ["Smiling", "Male"], each one of `known`, none twice; [] for an empty text. Raises UserError."""
    names = [check_name(name.strip(), known, flag) for name in text.split(",")] if text else []
    return list(dict.fromkeys(names))


def parse_wanted(text, known, flag):
    """"Smiling=1,Male=-1" → {"Smiling": 1, "Male": -1}, each one of `known`; {} for an empty text. Raises UserError."""
    wanted = {}
    for part in text.split(",") if text else []:
        name, _, value = part.partition("=")
        if value.strip() not in ("1", "-1"):
            raise UserError(f"{flag} {text}: expected attributes as in Smiling=1,Male=-1 (1: has it, -1: has it not)")
        name = check_name(name.strip(), known, flag)
        if wanted.setdefault(name, int(value)) != int(value):
            raise UserError(f"{flag} {text}: asks for {name} both ways")
    return wanted
