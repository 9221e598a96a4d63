"""PyTorch's files, read without PyTorch."""
from collections import OrderedDict

import numpy as np
import pytest

from scoring.torchfile import read_torch
from torch_format import Storage, Tensor

formats = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


@formats
def test_torchs_files_are_read_without_torch(save, zipped):
    shared, count = Storage(np.arange(12, dtype=np.float32)), Storage(np.array([7]))
    content = OrderedDict(whole=Tensor(shared, 0, (3, 4), (4, 1)), turned=Tensor(shared, 4, (4, 2), (1, 4)),
                          number=Tensor(count, 0, (), ()))
    content._metadata = OrderedDict(version=1)  # as torch's state dicts have it
    arrays = read_torch(save(content, zipped))
    whole = np.arange(12).reshape(3, 4)
    assert list(arrays) == ["whole", "turned", "number"] and arrays["whole"].dtype == np.float32
    assert (arrays["whole"] == whole).all() and (arrays["turned"] == whole[1:].T).all() and arrays["number"] == 7


def test_a_tensor_stays_within_its_storage(save):
    with pytest.raises((ValueError, TypeError)):
        read_torch(save({"a": Tensor(Storage(np.zeros(4, np.float32)), 1, (4,), (1,))}, True))
