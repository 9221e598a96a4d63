"""Every random draw after the initial weights: each is keyed by what it is for, so none depends on those before it."""
import hashlib

import numpy as np


def draws(seed, purpose, *index):
    """A `numpy.random.Generator` of its own for (seed, purpose, index): the same key gives the same numbers.

    Step 1234 of seed 7 is then the same in a run that was interrupted before, and there is no state to save.
    The stream is Philox (Salmon et al. 2011), whose 128-bit key is a digest of the arguments.
    """
    text = repr((int(seed), purpose, *(int(i) for i in index)))
    key = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))


def noise(seed, purpose, step, count, z_dim):
    """z for one update: float32 [count, z_dim], from N(0, 1)."""
    return draws(seed, purpose, step).standard_normal((count, z_dim), dtype=np.float32)


def face_noise(seeds, z_dim):
    """z for the faces that `seeds` name: float32 [len(seeds), z_dim], from N(0, 1), a row a seed."""
    rows = [draws(seed, "face").standard_normal(z_dim, dtype=np.float32) for seed in seeds]
    return np.stack(rows) if rows else np.empty((0, z_dim), np.float32)
