"""The random numbers of a training run, all but the initial weights and the order of the faces."""
import numpy as np
import paddle

from augment import augment, changes
from training import randomness


class RunDraws:
    """Draws for the run of this `recipe` in one of several `ranks`, which share out the numbers that one process would draw.

    Each number depends on the seed, the purpose, and the update alone. The purposes ("z for D", …) are a contract: another
    wording gives every run other numbers.
    """

    def __init__(self, recipe, rank=0, ranks=1):
        self.recipe, self.rank, self.ranks = recipe, rank, ranks

    def noise(self, purpose, update, count):
        """z for one update: float32 [count, z_dim]."""
        return randomness.noise(self.recipe.seed, purpose, update, count, self.recipe.z_dim, self.recipe.noise)

    def chances(self, purpose, update, count):
        """What decides how `count` pictures are changed in one update (augment.changes): float32 [count, 8] in [0, 1)."""
        return randomness.draws(self.recipe.seed, purpose, update).random((count, 8), dtype=np.float32)

    def seed_layers(self, purpose, update):
        """Sets Paddle's own random numbers, which dropout takes its masks from, for one update of this rank."""
        numbers = randomness.draws(self.recipe.seed, f"{purpose}, rank {self.rank}", update)
        paddle.seed(int(numbers.integers(2**62)))

    def begin(self, step, shape):
        """Draws all numbers of a step (counted from 0) for pictures of this `shape`, [N, 3, S, S], each rank's.

        They come to the device in one copy, because each copy waits until the device has done what it was given before.
        """
        recipe, count = self.recipe, shape[0] * self.ranks
        d_updates, g_updates = (range(step * n, (step + 1) * n) for n in (recipe.d_steps, recipe.g_steps))
        arrays = {(purpose, i): self.noise(purpose, i, count)
                  for purpose, updates in (("z for D", d_updates), ("z for G", g_updates)) for i in updates}
        if recipe.augment != "off":
            arrays |= {(purpose, i): changes(self.chances(purpose, i, count), recipe.augment, recipe.augment_p, shape[2])
                       for purpose, updates in (("changes of reals", d_updates), ("changes of fakes for D", d_updates),
                                                ("changes of fakes for G", g_updates)) for i in updates}
        numbers = np.concatenate(list(arrays.values()), axis=1)[self.rank::self.ranks]
        columns = [array.shape[1] for array in arrays.values()]
        self.tensors = dict(zip(arrays, paddle.to_tensor(numbers).split(columns, axis=1), strict=True))

    def z(self, purpose, update, labels):
        """What G draws from in an update: z, and behind it the labels, if any; float32 [N, inputs]."""
        z = self.tensors[purpose, update]
        return z if labels is None else paddle.concat([z, labels], axis=1)

    def augmented(self, pictures, purpose, update):
        """The pictures as D sees them in this update, changed at random when the run augments."""
        policy = self.recipe.augment
        return pictures if policy == "off" else augment(pictures, self.tensors[purpose, update], policy)
