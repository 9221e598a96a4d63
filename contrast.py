"""Shows what a generator has learned: its faces beside real ones, and what its z means.

    python contrast.py                          # faces of imgs/ and of generator.py's weights → Generate/contrast.png
    python contrast.py --walk 1,5,9             # an interpolation through faces → Generate/walk.gif (or --out ….mp4, ….png)
    python contrast.py --sweep 0-9 --seed 7     # face 7, with each of the first ten numbers of z changed → Generate/sweep.png
    python contrast.py --direction Smiling      # faces that smile less and more → Generate/direction.png
    python contrast.py --sum "Smiling=1,Male=-1 - Smiling=-1,Male=-1 + Smiling=-1,Male=1"     # → Generate/sum.png
    python contrast.py --timelapse Output       # the sample grids of a run → Generate/timelapse.gif
    python contrast.py --neighbours             # each face above the training face nearest to it → Generate/neighbours.png
"""
from support.cli import Parser, UserError, number, number_list, picture_path, run_command, seed, seed_list

from functools import partial
from pathlib import Path

import numpy as np

from dataReader import DataReader
from intake.attributes import check_name, parse_names
from intake.photos import decoded, reason
from intake.sources import MAX_BYTES
from latent.directions import JUDGED, Directions, attribute_names, moved, shares_with
from latent.files import face_list, read_latents
from latent.sums import add_up, around, find_terms, parse_sum
from network import draw_faces
from scoring import metrics
from support import figures
from support.device import choose_device
from support.files import read_file
from training.checkpoint import load_generator
from training.randomness import LIMITS, between, face_inputs
from training.weights import describe_generator, find_generator, weights_path

FRAMES = 24  # from one face of an interpolation to the next
IN_STRIP = 8  # the same in a strip
SECONDS = 2  # from one face of an interpolation to the next
SHOWN_OF_TERM = 3  # faces of a term of a sum, as in the paper
ALSO_CHANGED = 3  # attributes named that change along with the one asked for
STRENGTHS = (-2, 0, 2)  # of a direction, in standard deviations of z
COLUMNS = 9  # values of a number of z in a sweep
SIDE, MAX_IN_FILM = 256, 640  # px: about the size of an interpolation's pictures; the largest size of grids in a run's film
LAST = 20  # frames for which a run's film shows its last grid; it has 10 frames a second


def build_parser():
    """The parser of the command's options."""
    parser = Parser(__doc__)
    group = parser.add_argument_group("what to show", "real beside generated faces, or one of these:")
    show = group.add_mutually_exclusive_group().add_argument
    show("--walk", type=face_list, metavar="LIST", help="an interpolation from each of these faces, such as 1,5,me.npy, to the "
         "next, and back")
    show("--sweep", type=seed_list, metavar="PLACES", help="change these numbers of z, counted from 0, one by one")
    show("--direction", metavar="ATTRIBUTE", help="faces moved through z so that they have more of one of CelebA's attributes")
    show("--sum", type=parse_sum, metavar="SUM", help="means of some faces added and subtracted: seeds, files of z, attributes, "
         'as in "1,5,9 - 3,me.npy + Male=1,Smiling=-1"')
    show("--timelapse", type=Path, metavar="RUN", help="the sample grids of a run folder, as a film")
    show("--neighbours", action="store_true", help="the training face nearest to each generated one")
    add = parser.add_argument_group("faces and files").add_argument
    add("--n", type=number(int, 1, 10_000), help="how many faces (default: 64 on each side; with --neighbours and --direction 8)")
    add("--seed", type=seed, help="the first of the generated faces (default: 0)")
    add("--z", type=read_latents, metavar="FILE", help="the faces of a file of z instead, such as generator.py --photo writes")
    add("--strengths", type=number_list, metavar="LIST",
        help="with --direction: how far, in standard deviations of z (default: "
        f"{','.join(map(str, STRENGTHS))})")
    add("--keep", default="", metavar="A,B", help="with --direction: attributes that are not to change with it")
    add("--data", default="imgs", metavar="DIR", help="packed faces")
    add("--weights", type=weights_path, metavar="FILE", help="weights that train.py saved, or the name of pretrained ones "
        "(default: those that generator.py draws with)")
    add("--out", type=partial(picture_path, endings=(".png", ".jpg", ".jpeg", ".webp", ".gif", ".mp4")), metavar="FILE",
        help="the picture or film (default: in Generate/, named after its content)")
    add("--device", choices=("auto", "cpu", "gpu"), default="auto", help="auto: a GPU where there is one")
    return parser


def check_options(options):
    """Raises UserError where options do not go together."""
    faces = [flag for flag, value in (("--n", options.n), ("--seed", options.seed), ("--z", options.z)) if value is not None]
    if faces and (options.walk or options.sum or options.timelapse):
        raise UserError(f"{faces[0]} does not go with --walk, --sum and --timelapse, which name what they show; leave it out")
    if options.z and len(faces) > 1:
        raise UserError(f"{faces[0]} does not go with --z, whose faces are all shown; leave it out")
    if not options.direction and (options.strengths or options.keep):
        raise UserError("--strengths and --keep go with --direction alone; leave them out")


def out_path(options, default, film=False):
    """The path of the picture. Raises UserError where its ending is that of a film, and the picture is none."""
    path = options.out or Path("Generate") / default
    if path.suffix.lower() in (".gif", ".mp4") and not film:
        raise UserError(f"--out {path}: this is one picture, not a film; name a .png file")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def save_film(path, frames, seconds):
    """Writes a film in any format. Raises UserError where packages for .mp4 are missing."""
    try:
        figures.save_film(path, frames, seconds)
    except ImportError as error:
        raise UserError(f"--out {path}: .mp4 needs packages that are not installed ({error}); type: "
                        "pip install 'imageio[ffmpeg]', or name a .gif file") from None


def chosen_inputs(generator, options, count):
    """What the faces that the options name are drawn from: those of --z, or `count` seeds from --seed on."""
    return face_inputs(generator.plan, options.z or range(options.seed or 0, (options.seed or 0) + count))


def contrast(generator, options):
    """Real faces at the left, generated ones at the right."""
    reals = DataReader(options.data, options.n or 64, seed=options.seed or 0).gather(0)[0]
    fakes = draw_faces(generator, chosen_inputs(generator, options, len(reals)))
    path = out_path(options, "contrast.png")
    figures.save_titled_grids(path, {"Real faces": reals, "Generated faces": fakes})
    return f"{len(reals)} real and {len(fakes)} generated faces: {path}"


def walk(generator, options):
    """An interpolation through the faces of some seeds and back to the first; as a strip without the way back."""
    if len(options.walk) < 2:
        raise UserError("--walk: name two seeds or more, such as 1,5,9")
    path = out_path(options, "walk.gif", film=True)
    strip = path.suffix.lower() not in (".gif", ".mp4", ".webp")
    z = face_inputs(generator.plan, options.walk)
    steps, ends = (IN_STRIP, z[1:]) if strip else (FRAMES, np.roll(z, -1, axis=0))
    shares = np.arange(steps) / steps  # the end of each part is the start of the next
    inputs = np.concatenate([between(generator.plan, one, other, shares) for one, other in zip(z, ends)])
    if strip:
        faces = draw_faces(generator, np.concatenate([inputs, z[-1:]]))
        figures.save_picture(path, figures.grid(faces, columns=len(faces)))
    else:
        faces = draw_faces(generator, inputs)
        larger = max(1, SIDE // generator.size)
        save_film(path, faces.repeat(larger, axis=1).repeat(larger, axis=2), SECONDS * len(options.walk))
    return f"{len(faces)} faces of an interpolation through {len(options.walk)} seeds: {path}"


def sweep(generator, options):
    """One face, with one number of z changed at a time: a row for each number."""
    wrong = [place for place in options.sweep if place >= generator.plan.z_dim]
    if wrong:
        raise UserError(f"--sweep {wrong[0]}: z has {generator.plan.z_dim} numbers, counted from 0 to {generator.plan.z_dim - 1}")
    values = np.linspace(*LIMITS[generator.plan.noise], COLUMNS, dtype=np.float32)
    rows = {}
    for place in options.sweep:
        inputs = chosen_inputs(generator, options, 1)[:1].repeat(len(values), axis=0)
        inputs[:, place] = values
        rows[f"z[{place}]"] = draw_faces(generator, inputs)
    path = out_path(options, "sweep.png")
    figures.save_rows(path, rows)
    face = options.z[0].name if options.z else options.seed or 0
    return f"face {face}, with each of {len(rows)} numbers of z from {values[0]:.1f} to {values[-1]:.1f}: {path}"


def direction(generator, options):
    """Some faces, moved along the direction of an attribute: a row for each strength."""
    known = attribute_names()
    name = check_name(options.direction, known, "--direction")
    kept = parse_names(options.keep, known, "--keep")
    plan, strengths = generator.plan, options.strengths or STRENGTHS
    along = Directions(generator).along(name, kept)
    faces = chosen_inputs(generator, options, options.n or 8)
    columns = [draw_faces(generator, moved(plan, inputs, along, strengths)) for inputs in faces]
    path = out_path(options, "direction.png")
    figures.save_rows(path, {f"{name} {strength:+g}" if strength else name: np.stack([column[row] for column in columns])
                             for row, strength in enumerate(strengths)})
    shares = [shares_with(generator, along, strength) for strength in strengths]
    place = known.index(name)
    print(f"of the faces of seeds 0 to {JUDGED - 1}, as a network that knows faces sees them, have {name}: "
          + ", ".join(f"{share[place]:.0%} at {strength:+g}" for share, strength in zip(shares, strengths)))
    changes = abs(shares[-1] - shares[0])
    also = [place for place in changes.argsort()[::-1] if known[place] != name][:ALSO_CHANGED]
    print("most of the others change: " + ", ".join(f"{known[place]} ({shares[0][place]:.0%} to {shares[-1][place]:.0%})"
                                                  for place in also))
    return f"{len(faces)} faces along the direction of {name}: {path}"


def total(generator, options):
    """A sum of means of faces: the faces of each term above their mean's, and the sum's, with faces around it."""
    terms = find_terms(generator, options.sum)
    result = add_up(generator.plan, terms)
    columns = {}
    for i, term in enumerate(terms):
        inputs = face_inputs(generator.plan, term.faces)
        columns[f"{'+' if term.sign > 0 else '–'} {term.text}" if i else term.text] = draw_faces(
            generator, np.concatenate([inputs[:SHOWN_OF_TERM], inputs.mean(axis=0, keepdims=True)]))
    path = out_path(options, "sum.png")
    figures.save_sum(path, columns, draw_faces(generator, around(generator.plan, result)))
    return f"{' '.join(columns)}: {path}"


def sample_grid(path):
    """A sample grid of a run, in RGB. Raises UserError for a damaged one."""
    try:
        with decoded(read_file(path, MAX_BYTES)) as (picture, _, _):
            return picture
    except Exception as error:  # a decoder may raise any for a damaged file
        raise UserError(f"{path}: {reason(error)}; delete it, and the film is made of the others") from None


def timelapse(options):
    """The sample grids of a run, one after the other."""
    paths = sorted((options.timelapse / "samples").glob("[0-9]*.png"), key=lambda path: (len(path.stem), path.stem))
    if not paths:
        raise UserError(f"--timelapse {options.timelapse}: has no samples/*.png; name the folder of a run of train.py")
    path = out_path(options, "timelapse.gif", film=True)
    if path.suffix.lower() in (".png", ".jpg", ".jpeg"):
        raise UserError(f"--out {path}: is one picture; name a .gif or .mp4 file")
    grids = [sample_grid(path) for path in paths]
    side = min(MAX_IN_FILM, grids[0].width)  # a folder may hold grids of several sizes
    frames = [np.asarray(grid.resize((side, side))) for grid in grids]
    save_film(path, np.stack(frames + frames[-1:] * LAST), (len(frames) + LAST) / 10)
    return f"{len(frames)} sample grids, from {paths[0].stem} to {paths[-1].stem}: {path}"


def neighbours(generator, options):
    """Each generated face above the training face nearest to it."""
    training = DataReader(options.data, 1)
    if training.size != generator.size:
        raise UserError(f"--data {options.data}: its faces have {training.size} px, the generated ones {generator.size}; name "
                        "those that the generator was trained on")
    fakes = draw_faces(generator, chosen_inputs(generator, options, options.n or 8))
    distances, places = metrics.nearest(fakes, training)
    path = out_path(options, "neighbours.png")
    figures.save_rows(path, {"generated": fakes, "nearest training face": training.faces[training.rows[places]]})
    return (f"{len(fakes)} faces above the training faces nearest to them, {distances.min():.0f} to {distances.max():.0f} "
            f"grey levels away: {path}")


def main():
    """The command: draws the picture or film."""
    options = build_parser().parse_args()
    check_options(options)
    if options.timelapse:
        print(timelapse(options))
        return
    choose_device(options.device)
    weights = options.weights or find_generator()
    generator, facts = load_generator(weights)
    print(f"{weights}: {describe_generator(facts)}")
    show = (walk if options.walk else sweep if options.sweep else direction if options.direction else total if options.sum
            else neighbours if options.neighbours else contrast)
    print(show(generator, options))


if __name__ == "__main__":
    run_command(main)
