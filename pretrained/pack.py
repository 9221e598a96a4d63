"""Makes the generator that comes with the program from one that was trained: half the size, with its scores.

    python pretrained/pack.py Output/best.safetensors Output/evaluation/scores.json

The weights become float16, which no score and no eye notices; the scores are those that evaluate.py wrote for them.
"""
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
import runtime  # noqa: E402, I001

import numpy as np  # noqa: E402

from checkpoint import SHIPPED, load_generator, read_metadata, write_tensors  # noqa: E402
from runtime import UserError  # noqa: E402


def main():
    """The command."""
    parser = runtime.Parser(__doc__)
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
    runtime.run_command(main)
