"""Says in numbers how good generated faces are: against real faces that training never saw, and beside known baselines.

    python evaluate.py                          # Output's best generator against imgs/ → Output/evaluation
    python evaluate.py --fake pictures/         # any folder of pictures, from any program; also a .npy of packed faces
    python evaluate.py --fid                    # also FID and KID, which need a network's weights (96 MB, fetched once)

Writes scores.json and report.png (the faces, their nearest training faces, and the scores as bars); of weights that were trained
with --conditional also attributes.png, the same seeds with the attributes of most faces, and with one of them changed.
"""
from support.cli import Parser, UserError, number, printable, run_command, seed

import json
import os
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from tqdm import tqdm

from dataReader import DataReader, map_faces
from intake.photos import Crop, decode, reason
from intake.sources import list_pictures
from network import SIZES, draw_faces
from scoring import fid, metrics
from support import figures
from support.device import choose_device
from support.files import read_file, write_json
from training.checkpoint import describe_generator, find_generator, load_discriminator, load_generator, read_facts
from training.randomness import draws, face_inputs
from zoo import Plan

MAX_SCORES = 2**24  # bytes of scores.json
FEWEST, FEW = 20, 500  # faces that can be scored at all; that make scores worth something
MAX_NAMED = 3  # pictures that were skipped
NOTHING_KNOWN = {"where": "", "pictures": "", "labels": {}, "scores": {}}  # of faces that another program drew
COLUMNS = {"swd_mean": ("SWD", "{:.1f}"), "ms_ssim": ("MS-SSIM", "{:.3f}"), "two_sample": ("two-sample", "{:.3f}"),
           "two_sample_error": ("±", "{:.3f}"), "nearest": ("nearest", "{:.2f}"), "nearest_1%": ("closest 1%", "{:.2f}"),
           "fid": ("FID", "{:.1f}"), "kid": ("KID", "{:.4f}"), "kid_error": ("±", "{:.4f}")}
LEGEND = """SWD         sliced Wasserstein distance of patches, x 1000, mean over the levels; lower is better
MS-SSIM     likeness of random pairs; best as the real faces', more means less variety
two-sample  how often a small network tells them from real faces; 0.5 is perfect
nearest     distance to the nearest training face, over that of held-out faces: copies are near 0, and blur makes it small (the
            real faces are training faces: for them it is the nearest other one)
closest 1%  the same of those nearest to a training face"""


def read_options():
    """Every option of the command."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--fake", metavar="PATH", help="a weights file, a folder or .zip of pictures, or a .npy file of uint8 "
        "[N, S, S, 3] (default: the generator that generator.py draws with)")
    add("--real", default="imgs", metavar="DIR", help="packed faces; compared with are those held out (default: imgs)")
    add("--n", type=number(int, FEWEST), default=2000, help="how many faces (default: 2000, or as many as are held out)")
    add("--out", type=Path, default=Path("Output/evaluation"), metavar="DIR", help="(default: Output/evaluation)")
    add("--seed", type=seed, default=0, help="of all that is drawn at random, the faces too (default: 0)")
    add("--fid", action="store_true", help="also FID and KID, with the Inception network of pytorch-fid")
    add("--inception", metavar="FILE", help="its weights, where they are not to be fetched")
    add("--device", choices=("auto", "cpu", "gpu"), default="auto", help="(default: auto, a GPU where there is one)")
    options = parser.parse_args()
    if options.fake == "":
        raise UserError("--fake: expected a weights file, a folder, a .zip or a .npy file, not an empty name")
    return options


def open_fakes(path):
    """What --fake names, before any of it is drawn or decoded. Raises UserError where it cannot be read.

    It has a `generator` or, where that is None, `stored` faces (an array, or pictures), and `facts` about it; the `size` of its
    faces, None where that can be chosen, and how many are `available`.
    """
    try:
        if path.is_dir() and path.suffix not in (".safetensors", ".npy"):
            os.listdir(path)
        elif not path.is_fifo():  # which would be waited for
            open(path, "rb").close()
    except FileNotFoundError:
        raise UserError(f"--fake {path}: no such file or folder") from None
    except OSError as error:
        raise UserError(f"--fake {path}: cannot be read ({error.strerror})") from None
    if path.suffix == ".safetensors":
        generator, facts = load_generator(path)
        return SimpleNamespace(path=path, generator=generator, facts=facts, size=generator.size, available=float("inf"))
    stored = map_faces(path)[0] if path.suffix == ".npy" else list_pictures([path], "--fake")
    size = stored.shape[1] if path.suffix == ".npy" else None
    return SimpleNamespace(path=path, generator=None, stored=stored, facts=NOTHING_KNOWN, size=size, available=len(stored))


def open_reals(folder, facts):
    """(held-out faces, training faces), with the labels that a generator takes where the packed faces have them: DataReaders."""
    labels = list(facts["labels"])
    there = set(labels) <= set(DataReader(folder, 1, split="all").manifest.get("attributes", []))
    if not there:
        print(f"note: {folder} has no labels by which to tell whether the attributes are there (pretreat.py --attributes)")
    heldout, training = (DataReader(folder, 1, split=split, where=facts["where"], conditional=",".join(labels) if there else "")
                         for split in ("heldout", "train"))
    if not SIZES[0] <= heldout.size <= SIZES[-1]:
        raise UserError(f"{folder}: faces of {heldout.size} px cannot be scored; pack them with pretreat.py --size 64, "
                        f"or from {SIZES[0]} to {SIZES[-1]}")
    return heldout, training


def open_discriminator(fakes, training):
    """The discriminator of a generator's run; None where there is no run, or one on other faces than these, or with labels."""
    if not fakes.generator:
        return None
    path = fakes.path.with_name("checkpoint.safetensors")
    options = (read_facts(path) or {"options": {}})["options"]
    if options.get("pictures") != training.fingerprint() or options.get("labels"):
        return None
    return load_discriminator(path, training.size)


def open_inputs(options):
    """All that the command reads and writes, opened and checked before anything takes long. Raises UserError."""
    fakes = open_fakes(Path(options.fake) if options.fake else find_generator())
    heldout, training = open_reals(options.real, fakes.facts)
    if fakes.size not in (None, heldout.size):
        raise UserError(f"--fake {fakes.path}: its faces have {fakes.size} px, those in --real {heldout.size}; name faces packed "
                        f"with pretreat.py --size {fakes.size}")
    count = min(options.n, len(heldout), len(training), fakes.available)
    inputs = SimpleNamespace(
        fakes=fakes, heldout=heldout, training=training, count=count, discriminator=open_discriminator(fakes, training),
        # Nothing is known of pictures, nor of the oldest weights; others know names and pixels, or names alone.
        same_split=fakes.facts["pictures"] in ("", training.fingerprint(), training.fingerprint(pixels=False)))
    check_count(count, inputs)
    inputs.inception = fid.load_inception(fid.find_inception(options.inception)) if options.fid or options.inception else None
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=options.out).close()
    except OSError as error:
        raise UserError(f"--out {options.out}: no folder that can be written to ({error.strerror}); name another") from None
    return inputs


def check_count(count, inputs):
    """Raises UserError where `count` faces are too few for scores."""
    if count < FEWEST:
        raise UserError(f"{count} faces are too few, scores need {FEWEST}: {inputs.fakes.path} must hold so many, and "
                        f"{inputs.heldout.path} as many held out of training (it has {len(inputs.heldout)}; "
                        "pretreat.py --holdout, and then train again)")


def describe(inputs, options):
    """Prints what will be compared, and what is to be said against it."""
    if inputs.fakes.generator:
        print(f"{printable(inputs.fakes.path)}: {describe_generator(inputs.fakes.facts)}")
    print(f"comparing {inputs.count:,} faces with as many that were held out of training"
          + (f"; {options.n:,} were asked for, but there are no more" if inputs.count < options.n else ""))
    if inputs.count < FEW:
        print(f"note: so few make noisy scores; with {FEW} held out, before training, they mean more (pretreat.py --holdout)")
    if not inputs.same_split:
        print(f"note: these weights were trained on other faces than those of {options.real}, perhaps on some that are held out "
              "here: the scores may flatter them")


@contextmanager
def progress(inputs):
    """A bar over the stages of the work; yields done(stage, share=1), to be called when so much of a stage is done."""
    count, area = inputs.count, (inputs.heldout.size / 64) ** 2
    seconds = {  # as measured on one core; the proportions are what counts
        "drawing": 0.018 * count * area, "nearest": 3e-6 * count * len(inputs.training),
        "features": 1.0 * count * bool(inputs.inception), "scores": (0.19 * count + 42) * area}
    with tqdm(total=sum(seconds.values()), desc="scoring", bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}",
              smoothing=0, disable=None) as bar:
        yield lambda stage, share=1: bar.update(min(share * seconds[stage], bar.total - bar.n))


def read_fakes(inputs, seed):
    """The faces of --fake: uint8 [N, S, S, 3], N as planned, less the pictures that could not be read."""
    fakes = inputs.fakes
    if fakes.generator:
        return draw_faces(fakes.generator, face_inputs(fakes.generator.plan, range(seed, seed + inputs.count)))
    rows = chosen(len(fakes.stored), inputs.count, seed)
    if fakes.size:
        return fakes.stored[rows]
    faces, skipped = [], []
    for picture in (fakes.stored[row] for row in rows):
        try:
            faces.append(decode(picture.read(), inputs.heldout.size, Crop("center")))
        except Exception as error:  # whatever a broken file makes a decoder say
            skipped.append(printable(f"skipped {picture.name}: {reason(error)}"))
    if len(skipped) > MAX_NAMED:
        skipped[MAX_NAMED:] = [f"skipped {len(skipped) - MAX_NAMED:,} more of {len(rows):,} pictures"]
    for line in skipped:
        tqdm.write(line)  # above the bar
    return np.array(faces)


def chosen(available, count, seed):
    """Which of the `available` things to take, where `count` are enough."""
    return np.sort(draws(seed, "chosen").permutation(available)[:count])


def score(some, reals, seed):
    """All scores of a set of faces, by name. Both have `faces`, `distances` to training faces, and `features` or None."""
    distances = metrics.sliced_wasserstein(some.faces, reals.faces, seed)
    accuracy, error = metrics.two_sample_accuracy(some.faces, reals.faces, seed)
    scores = {**{f"swd_{size}": distance for size, distance in distances.items()},
              "swd_mean": float(np.mean(list(distances.values()))), "ms_ssim": metrics.ms_ssim(some.faces, seed),
              "two_sample": accuracy, "two_sample_error": error}
    for name, share in (("nearest", 0.5), ("nearest_1%", 0.01)):  # nearer than a grey level is as good as equal
        scores[name] = float(np.quantile(some.distances, share) / max(1, np.quantile(reals.distances, share)))
    if some.features is not None:
        kid, deviation = fid.kernel_distance(some.features, reals.features, seed)
        scores.update(fid=fid.frechet_distance(some.features, reals.features), kid=kid, kid_error=deviation)
    return scores


def table(scores):
    """The scores of all sets as lines of text."""
    columns = [key for key in COLUMNS if key in scores["generated"]]
    rows = [["", *(COLUMNS[key][0] for key in columns)]]
    rows += [[name, *(COLUMNS[key][1].format(some[key]) for key in columns)] for name, some in scores.items()]
    return "\n".join(row[0].ljust(18) + "".join(cell.rjust(12) for cell in row[1:]) for row in rows)


def gather(inputs, seed, done):
    """The sets of faces, name → uint8 [N, S, S, 3], and the places of the "real faces" in the training faces."""
    fakes = read_fakes(inputs, seed)
    check_count(len(fakes), inputs)
    heldout, training = inputs.heldout, inputs.training
    places = chosen(len(training), len(fakes), seed)
    plan = inputs.fakes.generator.plan if inputs.fakes.generator else Plan(size=heldout.size)
    faces = {"held out": heldout.faces[heldout.rows[chosen(len(heldout), len(fakes), seed)]], "generated": fakes,
             **metrics.baselines(training.faces[training.rows[places]], plan, seed)}
    done("drawing")
    return faces, places


def score_sets(faces, places, inputs, seed, done):
    """All scores of each set but the held-out faces; and pairs of the most similar generated and training faces, ten of each."""
    together = np.concatenate(list(faces.values()))
    itself = np.concatenate([places if name == "real faces" else np.full(len(some), -1) for name, some in faces.items()])
    distances, closest = (np.split(found, len(faces)) for found in metrics.nearest(
        together, inputs.training, itself, progress=partial(done, "nearest")))
    features = np.split(fid.features(inputs.inception, together), len(faces)) if inputs.inception else [None] * len(faces)
    done("features")
    sets = {name: SimpleNamespace(faces=some, distances=far, features=seen)
            for (name, some), far, seen in zip(faces.items(), distances, features)}
    reals, scores = sets.pop("held out"), {}
    for name, some in sets.items():
        scores[name] = score(some, reals, seed)
        done("scores", 1 / len(sets))
    similar = sets["generated"].distances.argsort()[:10]
    copied = inputs.training.rows[closest[list(faces).index("generated")][similar]]
    return scores, (faces["generated"][similar], inputs.training.faces[copied])


def compare_counts(count, facts, folder):
    """Says where scores that these may be compared with are of another number of faces."""
    try:
        earlier = json.loads(read_file(folder / "scores.json", MAX_SCORES))["n"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        earlier = count  # there are none
    for others, n in (("the weights bring along", facts["scores"].get("n", count)), (f"{folder}/scores.json had", earlier)):
        if n != count:
            print(f"note: the scores that {others} are of {printable(n)} faces, these of {count}: do not compare them")


def judge_discriminator(discriminator, faces):
    """How often a run's own discriminator was right, by kind of face, printed and returned."""
    right = {"training faces": float((metrics.judge_all(discriminator, faces["real faces"]) > 0).mean()),
             "held-out faces": float((metrics.judge_all(discriminator, faces["held out"]) > 0).mean()),
             "generated": float((metrics.judge_all(discriminator, faces["generated"]) < 0).mean())}
    print("the discriminator of the run is right on " + ", ".join(f"{share:.1%} of {name}" for name, share in right.items())
          + (": it knows the training faces by heart" if right["training faces"] > right["held-out faces"] + 0.1 else ""))
    return right


def judge_attributes(inputs, options):
    """Whether a conditional generator draws what it is asked for, printed and returned, with a figure."""
    generator = inputs.fakes.generator
    shown = metrics.attributes_shown(generator, inputs.training, inputs.heldout, options.seed)
    print("\na small network, trained on the labels of real faces, is right about"
          + "".join(f"\n{name:18}" + ", ".join(f"{share:.1%} {what}" for what, share in shares.items())
                    for name, shares in shown.items()))
    usual = {name: max((-1, 1), key=labels.count) for name, labels in generator.plan.labels.items()}
    asked = {"as most faces": usual}
    asked |= {f"{'' if usual[name] < 0 else 'not '}{name}": usual | {name: -usual[name]} for name in shown}
    rows = {title: draw_faces(generator, face_inputs(generator.plan, range(12), labels)) for title, labels in asked.items()}
    figures.save_rows(options.out / "attributes.png", rows)
    return shown


def judge_extras(faces, inputs, options):
    """What there is besides scores, by its name in scores.json; and a sentence about each that failed."""
    extras, found, failed = {}, {}, []
    if inputs.discriminator:
        extras["discriminator is right"] = partial(judge_discriminator, inputs.discriminator, faces)
    if inputs.training.conditional:
        extras["attributes"] = partial(judge_attributes, inputs, options)
    for name, judge in extras.items():
        try:
            found[name] = judge()
        except Exception as error:  # whatever it is, the scores are worth more
            failed.append(f"{name} ({reason(error)})")
    return found, failed


def main():
    """The command: opens what it is to read, scores the faces, writes table, file and page, and then what there is besides."""
    options = read_options()
    choose_device(options.device)
    inputs = open_inputs(options)
    describe(inputs, options)
    with progress(inputs) as done:
        faces, places = gather(inputs, options.seed, done)
        scores, pairs = score_sets(faces, places, inputs, options.seed, done)
    count, fakes = len(faces["generated"]), inputs.fakes
    print(f"\nThe scores of {count:,} faces against {count:,} held-out ones depend on this number. The row \"real faces\" has "
          f"those\nof {count:,} training faces against the same held-out ones: what scores like them is as good as real, as far "
          f"as this\nnumber tells.\n\n{table(scores)}\n\n{LEGEND}")
    compare_counts(count, fakes.facts, options.out)

    description = describe_generator(fakes.facts) if fakes.generator else ""
    written = {"fake": str(fakes.path), "description": description, "real": options.real, "n": count, "seed": options.seed,
               "scores": scores, "scores that the weights bring along": fakes.facts["scores"],
               "weights were trained on the rest of these faces": inputs.same_split, "discriminator is right": {},
               "attributes": {}}
    write_json(options.out / "scores.json", written)
    title = [str(fakes.path), description,
             f"{count:,} generated faces against {count:,} of {options.real} that were held out of training"]
    figures.save_report(options.out / "report.png", title, faces["generated"][:100], faces["held out"][:100], *pairs, scores)
    found, failed = judge_extras(faces, inputs, options)
    write_json(options.out / "scores.json", written | found)
    if failed:
        raise UserError(f"{options.out} has the scores, but this failed: {'; '.join(failed)}", status=1)
    print(f"{options.out}/scores.json has the numbers, {options.out}/report.png the page to look at")


if __name__ == "__main__":
    run_command(main)
