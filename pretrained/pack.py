"""Makes pretrained networks from those of a run: half the size, the generator with its scores.

    python -m pretrained.pack Output/best.safetensors Output/evaluation/scores.json
                          # → pretrained/celeba64.safetensors, and celeba64-discriminator.safetensors for train.py --from

The weights become float16, which changes neither the scores nor the faces visibly; the scores are those of evaluate.py. The
discriminator is that of the run's checkpoint.
"""
from support.cli import Parser, UserError, run_command

import json
from pathlib import Path

import numpy as np

from scoring.facefeatures import AID, load_features
from training.checkpoint import (
    RunOptions,
    load_discriminator,
    load_generator,
    network_arrays,
    read_facts,
    read_metadata,
    write_tensors,
)
from training.start import discriminator_beside
from training.weights import CHECKPOINT, PRETRAINED


def build_parser():
    """The parser of the command's options."""
    parser = Parser(__doc__, "WEIGHTS SCORES")
    parser.add_argument("weights", metavar="WEIGHTS", help="the file that train.py saved")
    parser.add_argument("scores", type=Path, metavar="SCORES", help="the scores.json that evaluate.py wrote for it")
    return parser


def halved(arrays):
    """Arrays by name, in half precision."""
    return {name: array.astype(np.float16) for name, array in arrays.items()}


def main():
    """The command: writes the pretrained generator of that size, and its discriminator."""
    options = build_parser().parse_args()
    generator, _ = load_generator(options.weights)
    written = json.loads(options.scores.read_text())
    if written["fake"] != options.weights:
        raise UserError(f"{options.scores}: these are scores of {written['fake']}, not of {options.weights}")
    scores = {"swd": written["scores"]["generated"]["swd_mean"], "n": written["n"], **written["scores"]["generated"]}
    path = PRETRAINED.with_name(f"celeba{generator.size}.safetensors")
    run = Path(options.weights).with_name(CHECKPOINT)
    facts = read_facts(run)
    if not facts:
        raise UserError(f"{run}: no such file; the discriminator is that of the run's checkpoint")
    discriminator = load_discriminator(run, generator.size, load_features(AID))
    write_tensors(path, halved({name: tensor.numpy() for name, tensor in generator.state_dict().items()}),
                  {**read_metadata(options.weights), "scores": json.dumps(scores)})
    kept = {"step": facts["step"], "seconds": facts["seconds"],
            "options": {key: facts["options"][key] for key in RunOptions.__struct_fields__}}
    beside = discriminator_beside(path)
    write_tensors(beside, halved(network_arrays("discriminator", discriminator)), {"run": json.dumps(kept)})
    for file in (path, beside):
        print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    run_command(main)
