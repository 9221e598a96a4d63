"""Faces by name: a seed, or a .npy file of z."""
from support.cli import MAX_FACES, seed_list

import argparse
from pathlib import Path

import numpy as np

from training.randomness import Latent

MAX_NUMBERS = 100_000  # of one face; a file of more is no file of z
MAX_ROWS = 1000  # of one file


def read_latents(path):
    """The faces of a .npy file of float32 [inputs] or [N, inputs]. Raises argparse.ArgumentTypeError for another file."""
    try:
        stored = np.lib.format.open_memmap(path, mode="r")  # mapped: nothing is read before its size is known
    except FileNotFoundError:
        raise argparse.ArgumentTypeError(f"{path}: no such file; generator.py --photo writes one") from None
    except (OSError, ValueError, EOFError) as error:
        raise argparse.ArgumentTypeError(f"{path}: not a readable .npy file ({str(error)[:80]})") from None
    rows = stored[None] if stored.ndim == 1 else stored
    if rows.ndim != 2 or rows.dtype.kind != "f" or not 1 <= len(rows) <= MAX_ROWS or not 1 <= rows.shape[1] <= MAX_NUMBERS:
        raise argparse.ArgumentTypeError(f"{path}: not z, which is an array of floating-point numbers with a row for each face "
                                         f"(at most {MAX_ROWS})")
    rows = np.array(rows, np.float32)
    if not np.isfinite(rows).all():
        raise argparse.ArgumentTypeError(f"{path}: has numbers that are not finite")
    stem = Path(path).stem
    return [Latent(stem if len(rows) == 1 else f"{stem}-{i}", row) for i, row in enumerate(rows)]


def face_list(text):
    """An argparse type: "0,4-6,me.npy" → [0, 4, 5, 6, Latent]: seeds, and the faces of files; MAX_FACES at most."""
    faces = []
    for part in map(str.strip, text.split(",")):
        faces += read_latents(part) if part.endswith(".npy") else seed_list(part)
    if len(faces) > MAX_FACES:
        raise argparse.ArgumentTypeError(f"{len(faces):,} faces; {MAX_FACES:,} are the most")
    return faces
