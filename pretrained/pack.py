"""Makes a pretrained generator from one that was trained: half the size, with its scores.

    python -m pretrained.pack Output/best.safetensors Output/evaluation/scores.json     # → pretrained/celeba64.safetensors

The weights become float16, which changes neither the scores nor the faces visibly; the scores are those of evaluate.py.
"""
from support.cli import Parser, UserError, run_command

import json
from pathlib import Path

import numpy as np

from training.checkpoint import load_generator, read_metadata, write_tensors
from training.weights import PRETRAINED


def build_parser():
    """The parser of the command's options."""
    parser = Parser(__doc__, "WEIGHTS SCORES")
    parser.add_argument("weights", metavar="WEIGHTS", help="the file that train.py saved")
    parser.add_argument("scores", type=Path, metavar="SCORES", help="the scores.json that evaluate.py wrote for it")
    return parser


def main():
    """The command: writes the pretrained generator of that size."""
    options = build_parser().parse_args()
    generator, _ = load_generator(options.weights)
    written = json.loads(options.scores.read_text())
    if written["fake"] != options.weights:
        raise UserError(f"{options.scores}: these are scores of {written['fake']}, not of {options.weights}")
    scores = {"swd": written["scores"]["generated"]["swd_mean"], "n": written["n"], **written["scores"]["generated"]}
    path = PRETRAINED.with_name(f"celeba{generator.size}.safetensors")
    write_tensors(path, {name: tensor.numpy().astype(np.float16) for name, tensor in generator.state_dict().items()},
                  {**read_metadata(options.weights), "scores": json.dumps(scores)})
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    run_command(main)
