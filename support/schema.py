"""What files from elsewhere say about themselves, and what is believed of it: types, ranges, lengths, and names that are safe.

A schema is a `msgspec.Struct` whose fields are made of the types below; a field that it does not have is passed over.
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
    """`content`, of dicts, lists and the like, as it stands. Raises UserError, which says what in `path` is wrong, and `hint`."""
    try:
        msgspec.convert(content, schema)
        return content
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: {error}; {hint}") from None


def parsed(text, path, hint):
    """What a JSON text, str or bytes, holds. Raises UserError for any other."""
    try:
        return json.loads(text, parse_constant=no_number)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: {error}; {hint}") from None


def no_number(text):
    """For NaN and Infinity, which Python's parser lets through, but which are no JSON."""
    raise ValueError(f"{text} is no number")
