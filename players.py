"""The two players of a training run: their networks, optimisers, and what one update does to them."""
from contextlib import contextmanager
from types import SimpleNamespace

import paddle

import ranks
import runtime
import zoo


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
                           autocast=lambda: runtime.autocast(precision))


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
