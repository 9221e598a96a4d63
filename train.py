"""Trains a DCGAN on the faces that pretreat.py packed.

    python train.py                             # imgs/ → Output/, 8 epochs or 1,500 steps, whichever is more
    python train.py --steps 5000                # that many steps instead; resumes where the run ended
    python train.py --fresh --lr 1e-4           # a new run, in Output-2; the old one stays
    python train.py --out Output-2 --lr 1e-4    # resumes that one
    python train.py --from celeba64             # starts from trained weights, which your faces change
    python -m paddle.distributed.launch --devices 0,1 train.py    # on two GPUs

Stopped by Ctrl-C or cut off, the same command resumes the run.
"""
# Here are the updates of both networks and the loop that calls them; docs/how-it-works.md takes one step line by line. Not here:
# the networks and the losses (network.py), the options (recipe.py), the batches (dataReader.py), the random numbers
# (training/draws.py), the optimisers (training/players.py), and how a run is saved, resumed, scored and drawn (training/run.py).
from support.cli import run_command

from contextlib import contextmanager

import paddle
import paddle.nn.functional as F

import zoo
from dataReader import DataReader
from network import choose_losses
from recipe import EMA_RAMPUP, FROM_EMA_RAMPUP, LAST_SHARE, make_recipe, parse_options
from support.device import choose_device, choose_precision
from training import ranks
from training.draws import RunDraws
from training.players import build_players
from training.run import Run, own_folder
from training.start import settle_start


class Trainer:
    """The training step: D's updates and G's, by the `recipe`, and the averaged generator that samples are drawn with."""

    def __init__(self, players, recipe):
        # G and D are players, each a network with its optimiser: see build_players.
        self.G, self.D, self.average, self.autocast = players.G, players.D, players.average, players.autocast
        self.discriminator_loss, self.generator_loss = choose_losses(recipe.loss, recipe.label_smoothing)
        self.draws = RunDraws(recipe, ranks.RANK, ranks.COUNT)
        self.recipe = recipe

    def step(self, step, batches):
        """One step (counted from 0): D's updates, then G's (Goodfellow et al. 2014, algorithm 1).

        batches  yields real faces, float32 [N, 3, S, S] in [-1, 1], and their labels, float32 [N, K] of -1 and 1, or None

        Returns scalars: D's loss, G's loss, and D's mean probability of "real" on reals and on fakes, over all logits that it has
        of a face. They are of the step's last updates and of this rank's share of the batch. A conditional run draws the fakes
        with the labels of the real faces.
        """
        d_steps, g_steps = self.recipe.d_steps, self.recipe.g_steps
        real_batches = [next(batches) for _ in range(d_steps)]
        self.draws.begin(step, real_batches[0][0].shape)
        for i, (reals, labels) in enumerate(real_batches, step * d_steps):
            d_loss, real_logits, fake_logits = self.update_discriminator(i, reals, labels)
        labels = real_batches[-1][1]
        for i in range(step * g_steps, (step + 1) * g_steps):
            g_loss = self.update_generator(i, labels)
        return d_loss, g_loss, F.sigmoid(real_logits).mean(), F.sigmoid(fake_logits).mean()

    def update_discriminator(self, i, reals, labels):
        """D's update i: maximise log D(x) + log(1 - D(G(z))). (Equation 1 of the paper; for other losses see network.LOSSES.)"""
        G, D = self.G.parallel, self.D.parallel
        known = () if labels is None else (labels,)
        self.draws.seed_layers("layers in D's update", i)
        with self.autocast():
            reals = self.draws.augmented(reals, "changes of reals", i)
            with paddle.no_grad():
                fakes = self.draws.augmented(G(self.draws.z("z for D", i, labels)), "changes of fakes for D", i)
            real_logits, fake_logits = D(reals, *known), D(fakes, *known)
        loss = self.discriminator_loss(real_logits, fake_logits)
        descend(self.D, loss)
        return loss, real_logits, fake_logits

    def update_generator(self, i, labels):
        """G's update i: maximise log D(G(z)). (The non-saturating loss of the paper's section 3.)"""
        G, D = self.G.parallel, self.D.network  # D is frozen: it has no gradients to average over the ranks
        known = () if labels is None else (labels,)
        self.draws.seed_layers("layers in G's update", i)
        with frozen(D):
            with self.autocast():
                logits = D(self.draws.augmented(G(self.draws.z("z for G", i, labels)), "changes of fakes for G", i), *known)
            loss = self.generator_loss(logits)
            descend(self.G, loss)
        return loss

    def set_rates(self, step, total_steps):
        """The learning rates of a step: in the last share `decay` of the run's steps they fall linearly, to LAST_SHARE."""
        falling, left = self.recipe.decay * total_steps, total_steps - step
        share = 1 - (1 - LAST_SHARE) * (1 - left / falling) if left < falling else 1.0
        self.D.adam.set_lr(share * self.recipe.lr_d)
        self.G.adam.set_lr(share * self.recipe.lr_g)

    @paddle.no_grad()
    def update_average(self, images_seen, step_images):
        """Moves the averaged generator, weights and batch-norm statistics, towards the generator as it is now.

        Its half-life is `ema` images, but at most a share of all images seen so far (Karras et al. 2020, StyleGAN2-ADA), which
        is larger where G began with trained weights. With an `ema` of 0 it is a copy of the generator.
        """
        half_life = min(self.recipe.ema, (FROM_EMA_RAMPUP if self.recipe.from_ else EMA_RAMPUP) * images_seen)
        new_share = 1 - 0.5 ** (step_images / half_life) if half_life else 1.0
        now = self.G.network.state_dict()
        for name, mean in self.average.state_dict().items():
            mean.scale_(1 - new_share).add_(now[name] * new_share)


@contextmanager
def frozen(network):
    """Inside the block, the network's weights take no gradients, which saves computing them."""
    weights = [weight for weight in network.parameters() if not weight.stop_gradient]
    for weight in weights:
        weight.stop_gradient = True
    yield
    for weight in weights:
        weight.stop_gradient = False


def descend(player, loss):
    """One step of a player's Adam down the gradient of `loss`, which the backward pass averages over the ranks."""
    player.scaler.scale(loss).backward()
    player.scaler.step(player.adam)
    player.scaler.update()
    player.adam.clear_grad(set_to_zero=False)  # the next gradients take their place instead of being added to zeros


def train(run, players, recipe):
    """Trains from where the run is until it is done or asked to stop."""
    trainer = Trainer(players, recipe)
    with run.begin(players) as batches:
        for step in range(run.step, run.total_steps):  # counted from 0
            trainer.set_rates(step, run.total_steps)
            losses = trainer.step(step, batches)
            trainer.update_average((step + 1) * run.step_images, run.step_images)
            run.after(step, losses)
            if run.stop_signal:
                break
    run.end()


def main():
    """The command: reads its options, takes the run's folder, and trains."""
    options = parse_options(__doc__)
    reader = DataReader(options.data, options.batch, flip=options.flip, seed=options.seed, rank=ranks.RANK, ranks=ranks.COUNT,
                        where=options.where, conditional=options.conditional)
    zoo.check_size(options.arch, reader.size)
    if options.from_:
        settle_start(options, reader.size)
    print(f"data: {reader.describe()}")
    recipe = make_recipe(options, len(reader), reader.size)
    device = choose_device(options.device, aloud=True)
    precision = choose_precision(options.amp, device)
    ranks.join()
    with own_folder(options, reader) as folder, ranks.explained():
        run = Run(folder, options, recipe, reader, precision)
        if run.step < run.total_steps:
            train(run, build_players(recipe, reader.size, run.facts["labels"], precision), recipe)


if __name__ == "__main__":
    run_command(main)
