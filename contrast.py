"""Real and generated faces side by side, as one figure.

    python contrast.py                          # imgs/ and what generator.py draws with → Generate/contrast.png
"""
import runtime  # noqa: I001  (first: it prepares the CPU before Paddle is imported)

from pathlib import Path

import figures
from checkpoint import describe_generator, find_generator, load_generator
from dataReader import DataReader
from network import draw_faces
from randomness import face_inputs


def main():
    """The command: reads its options and draws the figure."""
    parser = runtime.Parser(__doc__)
    add = parser.add_argument
    add("--n", type=runtime.number(int, 1), default=64, help="faces on each side (default: 64)")
    add("--seed", type=runtime.number(int, 0), default=0, help="the first of the generated faces (default: 0)")
    add("--data", default="imgs", metavar="DIR", help="packed faces (default: imgs)")
    add("--weights", metavar="FILE", help="what train.py saved (default: those that generator.py draws with)")
    add("--out", type=runtime.picture_path, default=Path("Generate/contrast.png"), metavar="FILE",
        help="(default: Generate/contrast.png)")
    add("--device", choices=("auto", "cpu", "gpu"), default="auto", help="(default: auto, a GPU where there is one)")
    options = parser.parse_args()

    reals = DataReader(options.data, options.n, seed=options.seed).gather(0)[0]
    runtime.choose_device(options.device)
    weights = options.weights or find_generator()
    generator, facts = load_generator(weights)
    print(f"{weights}: {describe_generator(facts)}")
    seeds = range(options.seed, options.seed + len(reals))
    fakes = draw_faces(generator, face_inputs(generator.plan, seeds))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figures.save_titled_grids(options.out, {"Real faces": reals, "Generated faces": fakes})
    print(f"{len(reals)} real and as many generated faces: {options.out}")


if __name__ == "__main__":
    runtime.run_command(main)
