"""Reads the weights in a PyTorch file without PyTorch, and safely.

Such files are pickles, which can call any function of Python. Here they can call only those that make up a state dict.
"""
import collections
import io
import pickle
import zipfile

import numpy as np


def read_torch(content):
    """The bytes that `torch.save` made of a state dict → {name: array}, of float32 or int64.

    Raises pickle.UnpicklingError for other content. Both formats are in torch/serialization.py.
    """
    file = io.BytesIO(content)
    return read_zip(file) if content[:2] == b"PK" else read_legacy(file)


def read_zip(file):
    """The format since PyTorch 1.6: a .zip file with the pickle, and for each storage a file with its numbers."""
    with zipfile.ZipFile(file) as archive:
        folder = archive.namelist()[0].partition("/")[0]

        def storage(key, dtype, count):
            return np.frombuffer(archive.read(f"{folder}/data/{key}"), dtype, count)

        return TensorUnpickler(archive.open(f"{folder}/data.pkl"), storage).load()


def read_legacy(file):
    """The format before PyTorch 1.6: five pickles in a row, then the numbers of the storages."""
    storages = {}

    def storage(key, dtype, count):
        return storages.setdefault(key, np.empty(count, dtype))

    # a magic number, the format's version, facts about the machine; the state dict; the order of the storages
    *_, tensors, keys = (TensorUnpickler(file, storage).load() for _ in range(5))
    for key in keys:
        file.seek(8, io.SEEK_CUR)  # their count, which the pickle has, too
        file.readinto(storages[key])  # the tensors are views of it
    return tensors


def view(storage, offset, shape, strides, *_):
    """torch._utils._rebuild_tensor_v2: a tensor as a view of its storage, which numpy keeps within bounds."""
    size = storage.itemsize
    return np.ndarray(shape, storage.dtype, storage, offset * size, [stride * size for stride in strides])


KNOWN = {("collections", "OrderedDict"): collections.OrderedDict, ("torch._utils", "_rebuild_tensor_v2"): view,
         ("torch", "FloatStorage"): np.dtype("<f4"), ("torch", "LongStorage"): np.dtype("<i8")}


class TensorUnpickler(pickle.Unpickler):
    """An unpickler for what is KNOWN and nothing else; `storage(key, dtype, count)` gives it the numbers of tensors."""

    def __init__(self, file, storage):
        super().__init__(file)
        self.storage = storage

    def find_class(self, module, name):
        if (module, name) not in KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return KNOWN[module, name]

    def persistent_load(self, identity):
        _, dtype, key, _, count = identity[:5]  # "storage", …, the device it was on, …
        return self.storage(key, dtype, count)
