"""What torch.save writes, without torch."""
import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np


class Storage:
    """torch's storage, as far as a pickle shows it."""

    def __init__(self, numbers):
        self.numbers = numbers


class Tensor:
    """torch's tensor, as far as a pickle shows it: a view of a storage from `offset`, in numbers."""

    def __init__(self, storage, offset, shape, strides):
        self.of = (storage, offset, shape, strides, False, OrderedDict())

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.of


def saver(monkeypatch):
    """save(content, zipped) → the bytes that torch.save makes of it, in either format."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch._utils, utils._rebuild_tensor_v2 = utils, type("_rebuild_tensor_v2", (), {"__module__": "torch._utils"})
    for name in ("FloatStorage", "LongStorage"):
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)

    def save(content, zipped):
        storages, file = [], io.BytesIO()

        class Pickler(pickle.Pickler):
            def persistent_id(self, thing):
                if not isinstance(thing, Storage):
                    return None
                if thing not in storages:
                    storages.append(thing)
                kind = torch.FloatStorage if thing.numbers.dtype == np.float32 else torch.LongStorage
                return "storage", kind, str(storages.index(thing)), "cuda:0", len(thing.numbers), *([] if zipped else [None])

        if not zipped:
            for header in (0x1950a86a20f9469cfc6c, 1001, {"little_endian": True}):
                pickle.dump(header, file, protocol=2)
        Pickler(file, protocol=2).dump(content)
        if not zipped:
            pickle.dump([str(key) for key in range(len(storages))], file, protocol=2)
            return file.getvalue() + b"".join(
                len(storage.numbers).to_bytes(8, "little") + storage.numbers.tobytes() for storage in storages)
        with zipfile.ZipFile(whole := io.BytesIO(), "w") as archive:
            archive.writestr("weights/data.pkl", file.getvalue())
            for key, storage in enumerate(storages):
                archive.writestr(f"weights/data/{key}", storage.numbers.tobytes())
        return whole.getvalue()

    return save
