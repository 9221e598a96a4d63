"""The two players of a training run: their networks, optimisers, what one update does to them, and the random numbers
of a step."""
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import paddle

import zoo
from augment import augment, chances, changes
from support.device import autocast
from training import ranks
from training.randomness import noise


@contextmanager
def frozen(network):
    """Inside the block, the network's weights take no gradients, which saves computing them."""
    weights = [weight for weight in network.parameters() if not weight.stop_gradient]
    for weight in weights:
        weight.stop_gradient = True
    yield
    for weight in weights:
        weight.stop_gradient = False


def build_players(size, options, precision="float32"):
    """D, G and the averaged generator, with their initial weights, which --seed alone decides.

    A player has its `network`, the same for use on several devices (`parallel`), its `adam`, and the `scaler` that keeps
    float16 gradients from vanishing (which does nothing in another precision).
    """
    paddle.seed(options.seed)
    plan = zoo.Plan(**{key: size if key == "size" else getattr(options, key) for key in zoo.Plan._fields})
    generator = zoo.build_generator(plan)
    discriminator = zoo.build_discriminator(size, options)
    average = zoo.build_generator(plan)
    average.set_state_dict(generator.state_dict())
    for weight in average.parameters():
        weight.stop_gradient = True

    def player(network, lr):
        parallel = ranks.parallel(network)
        weights = [weight for weight in network.parameters() if not weight.stop_gradient]
        return SimpleNamespace(network=network, parallel=parallel,
                               adam=paddle.optimizer.Adam(lr, options.beta1, options.beta2, parameters=weights),
                               scaler=paddle.amp.GradScaler(enable=precision == "float16"))

    return SimpleNamespace(G=player(generator, options.lr_g), D=player(discriminator, options.lr_d), average=average,
                           autocast=lambda: autocast(precision))


def networks_and_adams(players):
    """The players under the names that they have in a checkpoint."""
    return ({"generator": players.G.network, "discriminator": players.D.network, "average": players.average},
            {"generator": players.G.adam, "discriminator": players.D.adam})


def set_rates(players, steps_done, options):
    """Gives both Adams the learning rates of the next step: halved once `options.halve_after` steps are done, if not 0."""
    share = 0.5 if 0 < options.halve_after <= steps_done else 1.0
    players.D.adam.set_lr(share * options.lr_d)
    players.G.adam.set_lr(share * options.lr_g)


def update(player, loss, shared=True):
    """One step of a player's Adam down the gradient of `loss`; unless the gradient is `shared` already, over all ranks."""
    player.scaler.scale(loss).backward()
    if not shared:
        ranks.average_gradients(player.network)
    player.scaler.step(player.adam)
    player.scaler.update()
    player.adam.clear_grad(set_to_zero=False)  # the next gradients take their place instead of being added to zeros


@paddle.no_grad()
def update_average(average, generator, images_seen, batch_size, half_life, ramp=0.05):
    """Moves the averaged generator, weights and batch-norm statistics, towards the generator as it is now.

    After `half_life` images seen, half of what it was is left; with a `half_life` of 0 it is the generator itself. It is at most
    the share `ramp` of all images seen so far (Karras et al. 2020, StyleGAN2-ADA).
    """
    half_life = min(half_life, ramp * images_seen)
    new_share = 1 - 0.5 ** (batch_size / half_life) if half_life else 1.0
    now = generator.state_dict()
    for name, mean in average.state_dict().items():
        mean.scale_(1 - new_share).add_(now[name] * new_share)


class StepDraws:
    """The random numbers of a step, for pictures of this `shape`, [N, 3, S, S], each rank's; all but those of `seed_layers`.

    They come to the device in one copy, because each copy waits until the device has done what it was given before. The ranks
    share out the numbers that one process would draw.
    """

    def __init__(self, step, options, shape):
        count, size, self.policy = shape[0] * ranks.COUNT, shape[2], options.augment
        d_updates, g_updates = (range(step * n, (step + 1) * n) for n in (options.d_steps, options.g_steps))
        arrays = {(purpose, i): noise(options.seed, purpose, i, count, options.z_dim, options.noise)
                  for purpose, updates in (("z for D", d_updates), ("z for G", g_updates)) for i in updates}
        if self.policy != "off":
            arrays |= {(purpose, i): changes(chances(options.seed, purpose, i, count), self.policy, options.augment_p, size)
                       for purpose, updates in (("changes of reals", d_updates), ("changes of fakes for D", d_updates),
                                                ("changes of fakes for G", g_updates)) for i in updates}
        numbers = ranks.share(np.concatenate(list(arrays.values()), axis=1))
        columns = [array.shape[1] for array in arrays.values()]
        self.tensors = dict(zip(arrays, paddle.to_tensor(numbers).split(columns, axis=1)))

    def z(self, purpose, update, labels):
        """What G draws from in an update: z, and behind it the labels, if any; float32 [N, inputs]."""
        z = self.tensors[purpose, update]
        return z if labels is None else paddle.concat([z, labels], axis=1)

    def augmented(self, pictures, purpose, update):
        """The pictures as D sees them in this update, changed at random when the run augments."""
        return pictures if self.policy == "off" else augment(pictures, self.tensors[purpose, update], self.policy)
