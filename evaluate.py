"""Scores generated faces: against real faces held out of training, and beside baselines.

    python evaluate.py                          # Output's best generator against imgs/ → Output/evaluation
    python evaluate.py --fake pictures/         # any folder of pictures, from any program; also a .npy of packed faces
    python evaluate.py --fid                    # also FID and KID, which need a network's weights (96 MB, fetched once)

Writes scores.json and report.png (the faces, their nearest training faces, and the scores as bars). For weights that were trained
with --conditional also attributes.png: the same seeds with the attributes of most faces, and with one of them changed.
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
from scoring.conditional import attribute_accuracy
from scoring.facefeatures import AID, load_features
from scoring.scores import LEGEND, chosen, score_sets, table
from support import figures
from support.device import choose_device
from support.files import read_file, write_json
from training.checkpoint import load_discriminator, load_generator, read_facts
from training.randomness import face_inputs
from training.weights import BEST, CHECKPOINT, LATEST, describe_generator, find_generator, weights_path
from zoo import Plan

MAX_SCORES = 2**24  # bytes of scores.json
MIN_FACES, NOISY_THRESHOLD = 20, 500  # faces that scores need; with fewer than so many they are noisy
MAX_NAMED = 3  # pictures that were skipped
MOVE_AWAY = "move it away, and the weights are scored without their discriminator"
NO_FACTS = {"where": "", "pictures": "", "labels": {}, "scores": {}}  # of faces that another program drew


def build_parser():
    """The parser of the command's options."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--fake", metavar="PATH", help="a weights file or the name of pretrained ones, a folder or .zip of pictures, or a .npy "
        "file of uint8 [N, S, S, 3] (default: the generator that generator.py draws with)")
    add("--real", default="imgs", metavar="DIR", help="packed faces; the comparison is with those held out of training")
    add("--n", type=number(int, MIN_FACES), default=2000, help="how many faces (default: 2000, or as many as are held out)")
    add("--out", type=Path, default=Path("Output/evaluation"), metavar="DIR", help="folder for scores.json and report.png")
    add("--seed", type=seed, default=0, help="seed of all random numbers, also of the generated faces")
    add("--fid", action="store_true", help="also FID and KID, with the Inception network of pytorch-fid")
    add("--inception", metavar="FILE", help="its weights, so that they need not be fetched")
    add("--device", choices=("auto", "cpu", "gpu"), default="auto", help="auto: a GPU where there is one")
    return parser


def open_fakes(path):
    """The input named by --fake, before any of it is drawn or decoded. Raises UserError where it cannot be read.

    It has a `generator` or, where that is None, `stored` faces (an array, or pictures), and `facts` about it; the `size` of its
    faces, None where that can be chosen; and the number of faces `available`.
    """
    try:
        if path.is_dir() and path.suffix not in (".safetensors", ".npy"):
            os.listdir(path)
        elif not path.is_fifo():  # opening a pipe would wait for a writer
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
    return SimpleNamespace(path=path, generator=None, stored=stored, facts=NO_FACTS, size=size, available=len(stored))


def open_reals(folder, facts):
    """(held-out faces, training faces): DataReaders, with the generator's attributes as labels where they are packed."""
    labels = list(facts["labels"])
    there = set(labels) <= set(DataReader(folder, 1, split="all").manifest.get("attributes", []))
    if not there:
        print(f"note: {folder} has no labels for these attributes, so the attributes of the faces are not judged (pretreat.py "
              "--attributes)")
    heldout, training = (DataReader(folder, 1, split=split, where=facts["where"], conditional=",".join(labels) if there else "")
                         for split in ("heldout", "train"))
    if not SIZES[0] <= heldout.size <= SIZES[-1]:
        raise UserError(f"{folder}: faces of {heldout.size} px cannot be scored; pack them with pretreat.py --size 64, "
                        f"or from {SIZES[0]} to {SIZES[-1]}")
    return heldout, training


def open_discriminator(fakes, training):
    """The discriminator of the run that saved the generator; None where no run did, or one on other faces or with labels.

    Raises UserError where the run's checkpoint cannot be read.
    """
    if not fakes.generator or fakes.path.name not in (BEST, LATEST):
        return None
    path = fakes.path.with_name(CHECKPOINT)
    options = (read_facts(path, MOVE_AWAY) or {"options": {}})["options"]
    if options.get("pictures") != training.fingerprint() or options.get("labels"):
        return None
    aid = load_features(AID) if options["vision_aided"] else None
    try:
        return load_discriminator(path, training.size, aid)
    except UserError:
        raise UserError(f"{path}: not a readable checkpoint; {MOVE_AWAY}") from None


def open_inputs(options):
    """All inputs and the output folder, opened and checked before the work begins. Raises UserError."""
    fakes = open_fakes(weights_path(options.fake) if options.fake else find_generator("--fake"))
    heldout, training = open_reals(options.real, fakes.facts)
    if fakes.size not in (None, heldout.size):
        raise UserError(f"--fake {fakes.path}: its faces have {fakes.size} px, those in --real {heldout.size}; name faces packed "
                        f"with pretreat.py --size {fakes.size}")
    count = min(options.n, len(heldout), len(training), fakes.available)
    inputs = SimpleNamespace(
        fakes=fakes, heldout=heldout, training=training, count=count, discriminator=open_discriminator(fakes, training),
        # Pictures have no fingerprint; other weights have one of names and pixels, or of names alone.
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
    if count < MIN_FACES:
        raise UserError(f"{count} faces are too few, scores need {MIN_FACES}: {inputs.fakes.path} must hold so many, and "
                        f"{inputs.heldout.path} as many held out of training (it has {len(inputs.heldout)}; pack it again with a "
                        "larger pretreat.py --holdout, and train again)")


def describe(inputs, options):
    """Prints what is compared, and why the scores may be worth less."""
    if inputs.fakes.generator:
        print(f"{printable(inputs.fakes.path)}: {describe_generator(inputs.fakes.facts)}")
    print(f"comparing {inputs.count:,} faces with as many that were held out of training"
          + (f"; {options.n:,} were asked for, but there are no more" if inputs.count < options.n else ""))
    if inputs.count < NOISY_THRESHOLD:
        print(f"note: scores of so few faces are noisy; {NOISY_THRESHOLD} held out before training make better ones (pretreat.py "
              "--holdout)")
    if not inputs.same_split:
        print(f"note: these weights were trained on other faces than those of {options.real}, perhaps on some that are held out "
              "here: the scores may be too good")


@contextmanager
def progress(inputs):
    """A progress bar; yields done(stage, share=1), to be called when such a share of a stage is done."""
    count, area = inputs.count, (inputs.heldout.size / 64) ** 2
    seconds = {  # as measured on one core; the bar needs their proportions
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
        except Exception as error:  # a decoder may raise any for a damaged file
            skipped.append(printable(f"skipped {picture.name}: {reason(error)}"))
    if len(skipped) > MAX_NAMED:
        skipped[MAX_NAMED:] = [f"skipped {len(skipped) - MAX_NAMED:,} more of {len(rows):,} pictures"]
    for line in skipped:
        tqdm.write(line)  # above the bar
    return np.array(faces)


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


def compare_counts(count, facts, folder):
    """Prints a note where earlier scores of these weights or in this folder are of another number of faces."""
    try:
        earlier = json.loads(read_file(folder / "scores.json", MAX_SCORES))["n"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        earlier = count  # there are none
    for place, n in (("in the weights' file", facts["scores"].get("n", count)), (f"that {folder}/scores.json had", earlier)):
        if n != count:
            print(f"note: the scores {place} are of {printable(n)} faces, these of {count}: do not compare them")


def judge_discriminator(discriminator, faces):
    """How often a run's own discriminator was right, by kind of face, printed and returned."""
    def verdicts(kind):  # one a face: a vision-aided D has several logits of each
        return metrics.logits(lambda pictures: discriminator(pictures).reshape([-1, len(pictures)]).mean(0), faces[kind])

    right = {"training faces": float((verdicts("real faces") > 0).mean()),
             "held-out faces": float((verdicts("held out") > 0).mean()),
             "generated": float((verdicts("generated") < 0).mean())}
    print("the discriminator of the run is right on " + ", ".join(f"{share:.1%} of {name}" for name, share in right.items())
          + (": it has memorised training faces" if right["training faces"] > right["held-out faces"] + 0.1 else ""))
    return right


def judge_attributes(inputs, options):
    """How well a conditional generator draws the attributes asked for, printed and returned, with a figure."""
    generator = inputs.fakes.generator
    accuracy = attribute_accuracy(generator, inputs.training, inputs.heldout, options.seed)
    left_out = [name for name in generator.plan.labels if name not in accuracy]
    if left_out:
        print(f"note: not judged, because all held-out faces have the attribute or none has it: {', '.join(left_out)}")
    if accuracy:
        print("\na small network, trained on the labels of real faces, is right about"
              + "".join(f"\n{name:18}" + ", ".join(f"{share:.1%} {what}" for what, share in shares.items())
                        for name, shares in accuracy.items()))
    usual = {name: max((-1, 1), key=labels.count) for name, labels in generator.plan.labels.items()}
    asked = {"as most faces": usual}
    asked |= {f"{'' if usual[name] < 0 else 'not '}{name}": usual | {name: -usual[name]} for name in usual}
    rows = {title: draw_faces(generator, face_inputs(generator.plan, range(12), labels)) for title, labels in asked.items()}
    figures.save_rows(options.out / "attributes.png", rows)
    return accuracy


def judge_extras(faces, inputs, options):
    """The results besides scores, by their names in scores.json; and a phrase about each that failed."""
    extras, found, failed = {}, {}, []
    if inputs.discriminator:
        extras["discriminator is right"] = partial(judge_discriminator, inputs.discriminator, faces)
    if inputs.training.conditional:
        extras["attributes"] = partial(judge_attributes, inputs, options)
    for name, judge in extras.items():
        try:
            found[name] = judge()
        except Exception as error:  # of any type: the scores are kept in any case
            failed.append(f"{name} ({reason(error)})")
    return found, failed


def main():
    """The command: opens its inputs, scores the faces, writes table, file and page, and then the extras."""
    options = build_parser().parse_args()
    if options.fake == "":
        raise UserError("--fake: expected a weights file, a folder, a .zip or a .npy file, not an empty name")
    choose_device(options.device)
    inputs = open_inputs(options)
    describe(inputs, options)
    with progress(inputs) as done:
        faces, places = gather(inputs, options.seed, done)
        scores, pairs = score_sets(faces, places, inputs.training, inputs.inception, options.seed, done)
    count, fakes = len(faces["generated"]), inputs.fakes
    print(f"\nThe scores of {count:,} faces against {count:,} held-out ones depend on this number. The row \"real faces\" has "
          f"those\nof {count:,} training faces against the same held-out ones: faces with the same scores are as good as real "
          f"ones, as far as\nthis number tells.\n\n{table(scores)}\n\n{LEGEND}")
    compare_counts(count, fakes.facts, options.out)

    description = describe_generator(fakes.facts) if fakes.generator else ""
    written = {"fake": str(fakes.path), "description": description, "real": options.real, "n": count, "seed": options.seed,
               "scores": scores, "scores in the weights' file": fakes.facts["scores"],
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
