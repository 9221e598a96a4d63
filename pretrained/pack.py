"""Makes the generator that comes with the program from one that was trained: half the size, with its scores.

    python -m pretrained.pack Output/best.safetensors Output/evaluation/scores.json

The weights become float16, which no score and no eye notices; the scores are those that evaluate.py wrote for them.
"""
from support.cli import Parser, UserError, run_command

import json
from pathlib import Path

import numpy as np

from training.checkpoint import SHIPPED, load_generator, read_metadata, write_tensors


def main():
    """The command."""
    parser = Parser(__doc__)
    parser.add_argument("weights", help="what train.py saved")
    parser.add_argument("scores", type=Path, help="what evaluate.py wrote about it")
    options = parser.parse_args()
    generator, _ = load_generator(options.weights)
    written = json.loads(options.scores.read_text())
    if written["fake"] != options.weights:
        raise UserError(f"{options.scores}: scores of {written['fake']}, not of {options.weights}")
    scores = {"swd": written["scores"]["generated"]["swd_mean"], "n": written["n"], **written["scores"]["generated"]}
    write_tensors(SHIPPED, {name: tensor.numpy().astype(np.float16) for name, tensor in generator.state_dict().items()},
                  {**read_metadata(options.weights), "scores": json.dumps(scores)})
    print(f"{SHIPPED}: {SHIPPED.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    run_command(main)
