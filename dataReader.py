"""Packed faces → batches for training. As a script it draws the "Training Images" figure.

    python dataReader.py                        # imgs/ → Output/training_images.png
"""
from support.cli import Parser, UserError, number, picture_path, run_command

import hashlib
import json
import mmap
import tokenize
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import numpy as np
import paddle
from msgspec import Meta, Struct

from intake.attributes import parse_names, parse_wanted
from support import figures
from support.files import read_file
from support.schema import MAX_MANIFEST, Count, Names, Size, Text, checked, parsed
from training.randomness import draws


def map_array(path, dtype, wanted):
    """Opens a .npy file of this type and shape (None: any length) without reading it; returns the array and the `mmap` under it.

    Raises UserError for a file of another type or shape, and FileNotFoundError where there is none.
    """
    if Path(path).exists() and not Path(path).is_file():  # opening a pipe would wait for a writer
        raise UserError(f"{path}: not a file; name another, or run pretreat.py again")
    with open(path, "rb") as file:
        try:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("another version of the .npy format")
            shape, by_columns, found = np.lib.format.read_array_header_1_0(file)
            fits = len(shape) == len(wanted) and all(side in (None, length) for side, length in zip(wanted, shape))
            if found != dtype or not fits or by_columns:
                raise ValueError(f"an array of {found} {list(shape)}, not of {np.dtype(dtype)} "
                                 f"[{', '.join(str(side or 'N') for side in wanted)}]")
            start = file.tell()
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            return np.ndarray(shape, dtype, buffer=mapping, offset=start), mapping
        except (ValueError, TypeError, SyntaxError, OverflowError, MemoryError, RecursionError, tokenize.TokenError) as error:
            raise UserError(f"{path}: damaged, or of another kind ({error}); run pretreat.py again") from None


def map_faces(path):
    """Opens a .npy file of uint8 [N, S, S, 3]: see `map_array`."""
    faces, mapping = map_array(path, np.uint8, (None, None, None, 3))
    if not 0 < faces.shape[1] == faces.shape[2]:
        raise UserError(f"{path}: its faces have {faces.shape[2]}×{faces.shape[1]} px, no square; run pretreat.py again")
    return faces, mapping


class Manifest(Struct):
    """The parts of manifest.json that are needed here."""

    size: Size
    crop: Text
    sources: Annotated[list[str], Meta(max_length=10_000)]
    names: list[str]
    held_out: list[Count]
    attributes: Names = []
    digest: Text = ""


def read_manifest(path, count, size):
    """The manifest that pretreat.py wrote for `count` faces of `size` px, as a dict.

    Raises UserError where it is damaged or belongs to other faces.
    """
    again = "run pretreat.py again"
    try:
        manifest = checked(parsed(read_file(path, MAX_MANIFEST), path, again), Manifest, path, again)
    except ValueError as error:
        raise UserError(f"{path}: {error}; {again}") from None
    if manifest["size"] != size or len(manifest["names"]) != count or max(manifest["held_out"], default=0) >= max(1, count):
        raise UserError(f"{path}: does not belong to the faces beside it; {again}")
    return manifest


def normalise(faces):
    """uint8 faces [B, S, S, 3] → float32 tensor [B, 3, S, S] in [-1, 1], computed on the device."""
    # In this order, and scaled in place: on a CPU other orders take up to ten times the time.
    return paddle.to_tensor(faces).astype("float32").scale_(1 / 127.5, bias=-1.0).transpose([0, 3, 1, 2])


class DataReader:
    """Batches of the faces that pretreat.py packed into the folder `path`, in a new random order each epoch.

    split       "train", "heldout" or "all"
    batch_size  faces in a batch, over all ranks; a smaller set gives smaller batches
    flip        mirror each face with probability 1/2
    seed        of orders and flips
    rank, ranks of the faces of each batch, this process takes those at rank, rank + ranks, …
    where       take only the faces with these attributes, such as "Smiling=1,Male=-1"
    conditional attributes that are the labels of each batch, such as "Smiling,Male"

    The faces stay on the disk, memory-mapped; one thread gathers the next batch while this one is used. There are no worker
    processes and no shared memory, which is tiny on AI Studio. Raises UserError for a folder without faces.
    """

    def __init__(self, path, batch_size, split="train", flip=False, seed=0, rank=0, ranks=1, where="", conditional=""):
        self.path, self.flip, self.seed, self.rank, self.ranks = Path(path), flip, seed, rank, ranks
        try:
            self.faces, self._mapping = map_faces(self.path / "faces.npy")
            self.manifest = read_manifest(self.path / "manifest.json", *self.faces.shape[:2])
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(f"{path}: no packed faces in this folder; run pretreat.py first, or name another") from None
        self.size = self.faces.shape[1]
        attributes = self.manifest.get("attributes", [])
        wanted = parse_wanted(where, attributes, "--where")
        self.where = ",".join(f"{name}={wanted[name]}" for name in sorted(wanted))
        self.conditional = parse_names(conditional, attributes, "--conditional")
        self.labels = self._read_labels(attributes) if attributes else np.empty((len(self.faces), 0), np.int8)
        self.labels_given = self.labels[:, [attributes.index(name) for name in self.conditional]]
        fits = (self.labels[:, [attributes.index(name) for name in wanted]] == list(wanted.values())).all(axis=1)
        held_out = np.zeros(len(self.faces), bool)
        held_out[self.manifest["held_out"]] = True
        self.held_out_rows = np.flatnonzero(held_out & fits)
        self.rows = {"train": np.flatnonzero(~held_out & fits), "heldout": self.held_out_rows, "all": np.flatnonzero(fits)}[split]
        if len(self.rows) == 0:
            raise UserError(f"{path}: no face in the split {split!r} has --where {where}" if where else
                            f"{path}: no face is in the split {split!r}; run pretreat.py with another --holdout")
        self.batch_size = min(batch_size, len(self.rows))
        if self.batch_size % ranks:
            raise UserError(f"--batch {self.batch_size} cannot be divided evenly among {ranks} devices; use "
                            f"--batch {self.batch_size - self.batch_size % ranks or ranks}")
        self.batches_per_epoch = len(self.rows) // self.batch_size
        self._order = lru_cache(maxsize=2)(self._order)

    def __len__(self):
        """How many faces the split has."""
        return len(self.rows)

    def describe(self):
        """What the batches are made of, as one phrase."""
        which = f" with {self.where}" if self.where else ""
        return (f"{len(self)} faces{which} of {self.size} px in {self.path}, {self.batches_per_epoch} batches of "
                f"{self.batch_size} an epoch")

    def _read_labels(self, attributes):
        path = self.path / "labels.npy"
        try:
            labels, _ = map_array(path, np.int8, (len(self.faces), len(attributes)))
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); run pretreat.py --attributes again") from None
        if not np.isin(labels, (-1, 1)).all():
            raise UserError(f"{path}: has labels other than -1 and 1; run pretreat.py --attributes again")
        return labels

    def label_sample(self, most=256):
        """The conditional attributes → their labels for some of the split's faces, the same faces for all: lists of -1 and 1."""
        some = self.labels_given[self.rows[figures.evenly(len(self.rows), most)]]
        return dict(zip(self.conditional, some.T.tolist()))

    def label_digest(self):
        """A digest of the faces that `where` chooses and of the labels of the batches; "" without `where` and `conditional`."""
        if not self.where and not self.conditional:
            return ""
        return hashlib.blake2b(self.rows.tobytes() + self.labels_given[self.rows].tobytes(), digest_size=8).hexdigest()

    def facts(self):
        """What the weights of a run depend on, of its data: a dict; see `fingerprint`, `label_digest`, and `label_sample`."""
        return {"size": self.size, "pictures": self.fingerprint(), "where": self.where, "conditional": ",".join(self.conditional),
                "labelled": self.label_digest(), "labels": self.label_sample()}

    def held_out_faces(self, most):
        """The held-out faces, evenly spread, `most` at most: uint8 [N, S, S, 3]."""
        rows = self.held_out_rows
        return self.faces[rows[figures.evenly(len(rows), most)]] if len(rows) else self.faces[:0]

    def fingerprint(self, pixels=True):
        """A digest of the pictures' names, their order, their crop, which are held out, and, with `pixels`, of their pixels.

        For faces packed by versions without a digest of the pixels the fingerprint stays the same.
        """
        facts = [self.manifest[key] for key in ("size", "crop", "names", "held_out", "digest")
                 if key in self.manifest and (pixels or key != "digest")]
        return hashlib.blake2b(json.dumps(facts).encode(), digest_size=8).hexdigest()

    def batches(self, start_step=0):
        """Yields (faces, labels) for the steps start_step, start_step + 1, …, without end.

        Faces are float32 tensors [B, 3, S, S] in [-1, 1]; labels float32 [B, K] of -1 and 1, or None without `conditional`. The
        faces of a step depend on (seed, step) alone. An epoch leaves out the faces that do not fill a batch.
        """
        with ThreadPoolExecutor(1, "reader") as thread:
            step = start_step
            coming = thread.submit(self.gather, step)
            while True:
                faces, labels = coming.result()
                step += 1
                coming = thread.submit(self.gather, step)
                yield normalise(faces), paddle.to_tensor(labels.astype(np.float32)) if self.conditional else None

    def gather(self, step):
        """The faces of one step, this rank's share, and their labels: uint8 [B, S, S, 3], int8 [B, K]."""
        epoch, batch = divmod(step, self.batches_per_epoch)
        mine = slice(self.rank, self.batch_size, self.ranks)
        rows = self._order(epoch)[batch * self.batch_size:][mine]
        faces = self.faces[rows]
        if self.flip:
            flipped = draws(self.seed, "flip", step).random(self.batch_size)[mine] < 0.5
            faces[flipped] = faces[flipped, :, ::-1]
        if hasattr(mmap, "MADV_DONTNEED"):  # the process stays small; the system may keep the pages in its cache
            self._mapping.madvise(mmap.MADV_DONTNEED)
        return faces, self.labels_given[rows]

    def _order(self, epoch):
        return draws(self.seed, "order", epoch).permutation(self.rows)


def build_parser():
    """The parser of the command's options."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--data", default="imgs", metavar="DIR", help="packed faces")
    add("--out", type=picture_path, default=Path("Output/training_images.png"), metavar="FILE", help="the picture")
    add("--n", type=number(int, 1, 10_000), default=64, help="how many faces")
    return parser


def main():
    """The command: draws the figure."""
    options = build_parser().parse_args()
    reader = DataReader(options.data, options.n)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figures.save_titled_grids(options.out, {"Training Images": reader.gather(0)[0]})
    print(f"{len(reader)} training faces of {reader.size} px in {options.data}; {reader.batch_size} of them: {options.out}\n"
          "next: python train.py")


if __name__ == "__main__":
    run_command(main)
