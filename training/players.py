"""The two players of a training run, generator and discriminator, with their optimisers."""
from types import SimpleNamespace

import paddle

import zoo
from scoring.facefeatures import AID, load_features
from support import device
from training import ranks
from training.start import freeze_discriminator, freeze_generator


def build_players(recipe, size, labels=None, precision="float32"):
    """G, D and the averaged generator, for pictures of `size` px, with their initial weights, which the recipe's seed decides.

    labels     of a conditional run: see zoo.Plan
    precision  float32, bfloat16 or float16

    A player has its `network`, the same for use on several devices (`parallel`), its `adam`, and the `scaler` that keeps
    float16 gradients from vanishing (which does nothing in another precision).
    """
    aid = load_features(AID) if recipe.vision_aided else None  # before the seed: to build it takes random numbers
    paddle.seed(recipe.seed)
    plan = zoo.make_plan(recipe, size, labels or {})
    generator = zoo.build_generator(plan)
    discriminator = zoo.build_discriminator(plan, recipe.loss, aid)
    freeze_discriminator(discriminator, recipe.freeze_d)
    if recipe.freeze_g:
        freeze_generator(generator)
    average = zoo.build_generator(plan)
    average.set_state_dict(generator.state_dict())
    for weight in average.parameters():
        weight.stop_gradient = True

    def player(network, lr):
        parallel = ranks.parallel(network)
        weights = [weight for weight in network.parameters() if not weight.stop_gradient]
        return SimpleNamespace(network=network, parallel=parallel,
                               adam=paddle.optimizer.Adam(lr, recipe.beta1, recipe.beta2, parameters=weights),
                               scaler=paddle.amp.GradScaler(enable=precision == "float16"))

    return SimpleNamespace(G=player(generator, recipe.lr_g), D=player(discriminator, recipe.lr_d), average=average,
                           autocast=lambda: device.autocast(precision))


def networks_and_adams(players):
    """The players under the names that they have in a checkpoint."""
    return ({"generator": players.G.network, "discriminator": players.D.network, "average": players.average},
            {"generator": players.G.adam, "discriminator": players.D.adam})
