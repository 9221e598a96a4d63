"""Draws new faces with trained weights. A seed is a face: the same seed and weights give the same face again.

    python generator.py --n 16                  # your run, or the pretrained generator → Generate/
    python generator.py --seeds 7,20-29         # the faces of these seeds
    python generator.py --attr Smiling=1        # with weights that were trained with --conditional
    python generator.py --export model          # for other programs: a static Paddle model, ONNX, and an example
"""
from support.cli import Parser, UserError, count, number, run_command, seed, seed_list

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from intake.attributes import parse_wanted
from network import draw_faces
from support import figures
from support.device import choose_device, usable_cpus
from support.export import export
from support.files import claim, sweep
from training.checkpoint import describe_generator, find_generator, load_generator, weights_path
from training.randomness import face_inputs

MAX_IN_GRID = 400  # faces


def draw_and_save(generator, seeds, wanted, folder, batch_size):
    """Draws the faces of `seeds`, with the attributes `wanted`, into `folder`, each as seedNNNN.png, in batches.

    Returns the first of them for the grid, uint8 [N, S, S, 3]. A batch is drawn, then written, for each uses all cores.
    """
    in_grid = []
    with ThreadPoolExecutor(usable_cpus(), "writer") as threads:
        for start in range(0, len(seeds), batch_size):
            some = seeds[start:start + batch_size]
            faces = draw_faces(generator, face_inputs(generator.plan, some, wanted), batch_size)
            paths = [folder / f"seed{seed:04d}.png" for seed in some]
            list(threads.map(figures.save_picture, paths, faces))  # list() raises the error of a thread
            in_grid += list(faces[:MAX_IN_GRID - len(in_grid)])
    return np.stack(in_grid)


def build_parser():
    """The parser of the command's options."""
    parser = Parser(__doc__, "[--n N | --seeds LIST] [options]")
    add = parser.add_argument
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--n", type=count, default=16, help="how many faces")
    which.add_argument("--seeds", type=seed_list, metavar="LIST", help="the faces of these seeds, such as 0,4-6, instead of --n")
    add("--seed", type=seed, help="the first of --n seeds in a row (default: 0)")
    add("--attr", default="", metavar="A=1,B=-1",
        help="faces with these attributes, of weights trained with --conditional; other attributes are random")
    add("--weights", type=weights_path, metavar="FILE", help="weights that train.py saved, or the name of pretrained ones, "
        "such as celeba64 (default: the best of Output, or of the runs beside it, else celeba64)")
    add("--out", type=Path, default=Path("Generate"), metavar="DIR", help="folder for the faces")
    add("--export", type=Path, metavar="DIR", help="write the generator for other programs, instead of drawing")
    add("--batch", type=number(int, 1), default=100, help="faces drawn at the same time; fewer take less memory")
    add("--device", choices=("auto", "cpu", "gpu"), default="auto", help="auto: a GPU where there is one")
    return parser


def main():
    """The command: draws the faces, or exports the generator."""
    options = build_parser().parse_args()
    if options.seeds and options.seed is not None:
        raise UserError("--seed goes with --n, not with --seeds")
    if options.export and (options.seeds or options.seed is not None or options.attr):
        raise UserError("--export writes the generator itself; --seed, --seeds and --attr are for drawing")
    choose_device("cpu" if options.export else options.device)  # an export is compared with the network on the CPU
    weights = options.weights or find_generator()
    generator, facts = load_generator(weights)
    print(f"{weights}: {describe_generator(facts)}")
    if options.export:
        for name, difference in export(generator, options.export).items():
            print(f"{name}: differs from the network by {difference:.1e} at most")
        print(f"next: cd {options.export} && python example.py")
        return
    if options.attr and not facts["labels"]:
        raise UserError(f"--attr {options.attr}: these weights have no attributes; train some with train.py --conditional")
    wanted = parse_wanted(options.attr, list(facts["labels"]), "--attr")
    first = options.seed or 0
    seeds = options.seeds or range(first, first + options.n)
    options.out.mkdir(parents=True, exist_ok=True)
    with claim(options.out):
        sweep(options.out)
        in_grid = draw_and_save(generator, seeds, wanted, options.out, options.batch)
        figures.save_picture(options.out / "grid.png", figures.grid(in_grid))
    shown = "" if len(in_grid) == len(seeds) else f" (the first {MAX_IN_GRID})"
    show = "python contrast.py" if Path("imgs/faces.npy").exists() else "python contrast.py --walk 1,5,9"
    chosen = f" --weights {options.weights}" if options.weights else ""
    print(f"{len(seeds)} faces: {options.out}/seed{seeds[0]:04d}.png …, together{shown} in "
          f"{options.out}/grid.png\nnext: {show}{chosen}")


if __name__ == "__main__":
    run_command(main)
