"""train.py, which also leaves what this rank ended with: python rank_probe.py FOLDER [--without-bn] OPTIONS…

Without batch normalisation, the one thing that sees more than its own picture, two ranks must equal one process.
"""
from support.cli import run_command

import sys
from pathlib import Path

import numpy as np
import paddle

import network
import train
from training import monitor, ranks
from training.players import networks_and_adams

folder = Path(sys.argv.pop(1))
if "--without-bn" in sys.argv:
    sys.argv.remove("--without-bn")
    network.bn = lambda channels, **_: paddle.nn.Identity()

ended_with = {}
build_players = train.build_players


def build_and_keep(*arguments):
    players = build_players(*arguments)
    for name, part in networks_and_adams(players)[0].items():
        ended_with.update({f"{name}.{key}": tensor for key, tensor in part.state_dict().items()})
    return players


train.build_players = build_and_keep
monitor.MIN_HELD_OUT = 1
try:
    run_command(train.main)
finally:
    np.savez(folder / f"rank{ranks.RANK}.npz", **{name: tensor.numpy() for name, tensor in ended_with.items()})
