"""Draws new faces with trained weights. A seed is a face: the same seed and weights give the same face again.

    python generator.py --n 16                  # your run, or the pretrained generator → Generate/
    python generator.py --seeds 7,20-29         # the faces of these seeds
    python generator.py --photo me.jpg          # the face that it can draw nearest to the one in a photo, and its z
    python generator.py --attr Smiling=1        # with weights that were trained with --conditional
    python generator.py --export model          # for other programs: a static Paddle model, ONNX, and an example
"""
from support.cli import Parser, UserError, count, number, picture_path, run_command, seed

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from intake.attributes import parse_wanted
from intake.sources import MAX_BYTES
from latent.files import MAX_ROWS, face_list, read_latents
from latent.projection import STEPS, cut_face, project
from network import draw_faces
from support import figures
from support.device import choose_device, usable_cpus
from support.export import export
from support.files import claim, read_file, replacing, sweep
from training.checkpoint import load_generator
from training.randomness import Latent, face_inputs
from training.weights import describe_generator, find_generator, weights_path

MAX_IN_GRID = 400  # faces


@contextmanager
def output(folder):
    """Makes the folder for the faces; inside the block it is this command's alone."""
    folder.mkdir(parents=True, exist_ok=True)
    with claim(folder):
        sweep(folder)
        yield


def name_of(face):
    """The name of a face's picture, without its ending."""
    return face.name if isinstance(face, Latent) else f"seed{face:04d}"


def draw_and_save(generator, faces, wanted, folder, batch_size):
    """Draws faces, seeds or Latents, with the attributes `wanted`, into `folder`, each as NAME.png, in batches.

    Returns the first of them for the grid, uint8 [N, S, S, 3]. A batch is drawn, then written, for each uses all cores.
    """
    in_grid = []
    with ThreadPoolExecutor(usable_cpus(), "writer") as threads:
        for start in range(0, len(faces), batch_size):
            some = faces[start:start + batch_size]
            pictures = draw_faces(generator, face_inputs(generator.plan, some, wanted), batch_size)
            paths = [folder / f"{name_of(face)}.png" for face in some]
            list(threads.map(figures.save_picture, paths, pictures))  # list() raises the error of a thread
            in_grid += list(pictures[:MAX_IN_GRID - len(in_grid)])
    return np.stack(in_grid)


def read_photo(path, size):
    """The face in a photo, uint8 [size, size, 3], as CelebA's are aligned. Raises UserError."""
    try:
        data = read_file(path, MAX_BYTES)
    except (OSError, ValueError) as error:
        raise UserError(f"--photo {path}: cannot be read ({getattr(error, 'strerror', None) or error}); name a photo") from None
    return cut_face(data, size, f"--photo {path}")


def save_latents(path, inputs):
    """Writes what faces are drawn from, float32 [inputs] or [N, inputs], as a file of z."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        np.save(temporary, inputs)


def build_parser():
    """The parser of the command's options."""
    parser = Parser(__doc__, "[--n N | --seeds LIST | --z FILE | --photo FILE ...] [options]")
    add = parser.add_argument
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--n", type=count, default=16, help="how many faces")
    which.add_argument("--seeds", type=face_list, metavar="LIST",
                       help="the faces of these seeds, such as 0,4-6, instead of --n; me.npy among them is a file of z")
    which.add_argument("--z", type=read_latents, metavar="FILE", help="the faces of a file of z, such as --photo writes")
    which.add_argument("--photo", type=Path, nargs="+", metavar="FILE",
                       help="the face nearest to the one in each photo: NAME.npy is its z, NAME.png shows both")
    add("--seed", type=seed, help="the first of --n seeds in a row (default: 0)")
    add("--attr", default="", metavar="A=1,B=-1",
        help="faces with these attributes, of weights trained with --conditional; others are random")
    add("--save-z", type=partial(picture_path, endings=(".npy",)), metavar="FILE",
        help=f"also write the z of the faces, {MAX_ROWS:,} at most, as one .npy file")
    add("--weights", type=weights_path, metavar="FILE", help="weights that train.py saved, or the name of pretrained ones, "
        "such as celeba64 (default: those of Output, or of a run beside it, else celeba64)")
    add("--out", type=Path, default=Path("Generate"), metavar="DIR", help="folder for the faces")
    add("--export", type=Path, metavar="DIR", help="write the generator for other programs, instead of drawing")
    add("--batch", type=number(int, 1), default=100, help="faces drawn at the same time; fewer take less memory")
    add("--device", choices=("auto", "cpu", "gpu"), default="auto", help="auto: a GPU where there is one")
    return parser


def check_options(options):
    """Raises UserError where options do not go together."""
    named = options.seeds or options.z or options.photo
    if named and options.seed is not None:
        raise UserError("--seed goes with --n alone")
    if options.export and (named or options.seed is not None or options.attr or options.save_z):
        raise UserError("--export writes the generator itself; the options that name faces are for drawing")
    if options.export and options.device == "gpu":
        raise UserError("--export computes on the CPU, to compare what it writes with the network; leave out --device gpu")
    if options.photo and (options.attr or options.save_z):
        raise UserError("--photo finds a face, whose z it writes; --attr and --save-z are for drawing")


def draw(generator, facts, options):
    """Draws the faces that the options name, and says where they are."""
    if options.attr and not facts["labels"]:
        raise UserError(f"--attr {options.attr}: these weights have no attributes; train some with train.py --conditional")
    wanted = parse_wanted(options.attr, list(facts["labels"]), "--attr")
    first = options.seed or 0
    faces = options.seeds or options.z or range(first, first + options.n)
    if options.save_z and len(faces) > MAX_ROWS:
        raise UserError(f"--save-z: {len(faces):,} faces are too many for a file of z; {MAX_ROWS:,} are the most")
    with output(options.out):
        in_grid = draw_and_save(generator, faces, wanted, options.out, options.batch)
        figures.save_picture(options.out / "grid.png", figures.grid(in_grid))
        if options.save_z:
            save_latents(options.save_z, face_inputs(generator.plan, faces, wanted))
    shown = "" if len(in_grid) == len(faces) else f" (the first {MAX_IN_GRID})"
    print(f"{len(faces)} faces: {options.out}/{name_of(faces[0])}.png …, together{shown} in {options.out}/grid.png")
    return "python contrast.py" if Path("imgs/faces.npy").exists() else "python contrast.py --walk 1,5,9"


def check_names(photos, folder):
    """Raises UserError where the pictures of two photos, or that of a photo and the photo itself, would be the same file."""
    results = [(folder / f"{path.stem}.png").resolve() for path in photos]
    for path, result in zip(photos, results):
        if results.count(result) > 1 or result in [photo.resolve() for photo in photos]:
            raise UserError(f"--photo {path}: its result {result} would replace a photo or another result; name another --out, "
                            "or give the photos different names")


def find(generator, options):
    """Finds, for the face in each photo, the nearest one that can be drawn: NAME.npy is its z, NAME.png shows the two."""
    check_names(options.photo, options.out)
    faces = [read_photo(path, generator.size) for path in options.photo]  # all of them before the long work
    with output(options.out), tqdm(total=len(faces) * STEPS, desc="finding", unit="step", disable=None) as bar:
        for path, face in zip(options.photo, faces):
            row = project(generator, face, bar.update)
            both = np.stack([face, *draw_faces(generator, row[None])])
            figures.save_picture(options.out / f"{path.stem}.png", figures.grid(both, columns=2))
            save_latents(options.out / f"{path.stem}.npy", row)
    names = [options.out / path.stem for path in options.photo]
    print("\n".join(f"{name}.png: the photo's face, and the nearest that could be drawn; its z: {name}.npy" for name in names))
    return f"python contrast.py --walk {names[0]}.npy,1"


def main():
    """The command: draws faces, finds those in photos, or exports the generator."""
    options = build_parser().parse_args()
    check_options(options)
    choose_device("cpu" if options.export else options.device)  # an export is compared with the network on the CPU
    weights = options.weights or find_generator()
    generator, facts = load_generator(weights)
    print(f"{weights}: {describe_generator(facts)}")
    if options.export:
        for name, difference in export(generator, options.export).items():
            print(f"{name}: differs from the network by {difference:.1e} at most")
        print(f"next: cd {options.export} && python example.py")
        return
    show = find(generator, options) if options.photo else draw(generator, facts, options)
    print(f"next: {show}" + (f" --weights {options.weights}" if options.weights else ""))


if __name__ == "__main__":
    run_command(main)
