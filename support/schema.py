"""Checking the text in files: types, ranges, lengths, and safe names.

A schema is a `msgspec.Struct` with fields of the types below; fields that it lacks are ignored.
"""
from support.cli import UserError

import json
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

MAX_MANIFEST = 2**30  # bytes of a data set's manifest.json, which names each picture

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]  # steps, images, seeds
Size = Annotated[int, Meta(ge=1, le=1024)]  # of a face, px
Number = Annotated[float, Meta(ge=-1e12, le=1e12)]  # a score, seconds
Text = Annotated[str, Meta(max_length=2000)]
# The name of an attribute, such as 5_o_Clock_Shadow: letters, digits, _, - and spaces, in any script.
Name = Annotated[str, Meta(pattern=r"\A\w[\w -]{0,39}\Z")]
Names = Annotated[list[Name], Meta(max_length=1000)]
Label = Literal[-1, 1]


def checked(content, schema, path, hint):
    """Returns `content`, of dicts, lists and the like, unchanged.

    Raises UserError, with the `hint`, where it does not fit the schema; the sentence says what in the file `path` is wrong.
    """
    try:
        msgspec.convert(content, schema)
        return content
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: {error}; {hint}") from None


def parsed(text, path, hint):
    """The content of a JSON text, str or bytes. Raises UserError, with the `hint`, where `text` is not JSON."""
    try:
        return json.loads(text, parse_constant=no_number)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: {error}; {hint}") from None


def no_number(text):
    """Raises ValueError for NaN and Infinity, which Python's parser accepts although they are not JSON."""
    raise ValueError(f"{text} is no number")
