"""Says in numbers how good generated faces are: against real faces that training never saw, and beside known baselines.

    python evaluate.py                          # Output's best generator against imgs/ → Output/evaluation
    python evaluate.py --fake pictures/         # any folder of pictures, from any program; also a .npy of packed faces
    python evaluate.py --fid                    # also FID and KID, which need a network's weights (96 MB, fetched once)

Writes scores.json and report.png (the faces, their nearest training faces, and the scores as bars); of weights that were trained
with --conditional also attributes.png, the same seeds with the attributes of most faces, and with one of them changed.
"""
import runtime  # noqa: I001  (first: it prepares the CPU before Paddle is imported)

from pathlib import Path
from types import SimpleNamespace

import numpy as np

import fid
import figures
import metrics
from checkpoint import describe_generator, find_generator, load_discriminator, load_generator, read_facts
from dataReader import DataReader, map_faces
from files import write_json
from network import SIZES, draw_faces
from photos import Crop, decode, list_pictures, reason
from randomness import draws, face_inputs
from runtime import UserError
from zoo import Plan

FEWEST, FEW = 20, 500  # faces that can be scored at all; that make scores worth something
COLUMNS = {"swd_mean": ("SWD", "{:.1f}"), "ms_ssim": ("MS-SSIM", "{:.3f}"), "two_sample": ("two-sample", "{:.3f}"),
           "two_sample_error": ("±", "{:.3f}"), "nearest": ("nearest", "{:.2f}"), "nearest_1%": ("closest 1%", "{:.2f}"),
           "fid": ("FID", "{:.1f}"), "kid": ("KID", "{:.4f}"), "kid_error": ("±", "{:.4f}")}
LEGEND = """SWD         sliced Wasserstein distance of patches, x 1000, mean over the levels; lower is better
MS-SSIM     likeness of random pairs; best as the real faces', more means less variety
two-sample  how often a small network tells them from real faces; 0.5 is perfect
nearest     distance to the nearest training face, over that of held-out faces: copies are near 0 (training faces themselves
            are 0, and blur makes it small)
closest 1%  the same of those nearest to a training face"""


def read_options():
    """Every option of the command."""
    parser = runtime.Parser(__doc__)
    add = parser.add_argument
    add("--fake", type=Path, metavar="PATH", help="a weights file, a folder or .zip of pictures, or a .npy file of uint8 "
        "[N, S, S, 3] (default: the generator that generator.py draws with)")
    add("--real", default="imgs", metavar="DIR", help="packed faces; compared with are those held out (default: imgs)")
    add("--n", type=runtime.number(int, FEWEST), default=2000, help="how many faces (default: 2000, or as many as are held out)")
    add("--out", type=Path, default=Path("Output/evaluation"), metavar="DIR", help="(default: Output/evaluation)")
    add("--seed", type=runtime.seed, default=0, help="of all that is drawn at random, the faces too (default: 0)")
    add("--fid", action="store_true", help="also FID and KID, with the Inception network of pytorch-fid")
    add("--inception", metavar="FILE", help="its weights, where they are not to be fetched")
    add("--device", choices=("auto", "cpu", "gpu"), default="auto", help="(default: auto, a GPU where there is one)")
    return parser.parse_args()


def read_fakes(path, generator, count, size, seed):
    """At most `count` faces of what `path` names, drawn by the `generator` where it is a weights file."""
    if generator:
        check_size(path, generator.size, size)
        return draw_faces(generator, face_inputs(generator.plan, range(seed, seed + count)))
    if path.suffix == ".npy":
        if not path.exists():
            raise UserError(f"--fake {path}: no such file")
        faces = map_faces(path)[0]
        check_size(path, faces.shape[1], size)
        return faces[chosen(len(faces), count, seed)]
    pictures, faces = list_pictures([path], "--fake"), []
    for row in chosen(len(pictures), count, seed):
        try:
            faces.append(decode(pictures[row].read(), size, Crop("center")))
        except Exception as error:  # whatever a broken file makes a decoder say
            print(f"skipped {pictures[row].name}: {reason(error)}")
    return np.array(faces)


def check_size(path, size, wanted):
    """Raises UserError where faces to be compared differ in size."""
    if size != wanted:
        raise UserError(f"--fake {path}: its faces have {size} px, those in --real {wanted}; name faces packed with "
                        f"pretreat.py --size {size}")


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


def judge_discriminator(path, fakes, heldout, known, fingerprint):
    """How often a run's own discriminator was right, by kind of face, printed and returned.

    {} where no checkpoint lies beside the generator, or one that was trained on other faces than these, or with their labels.
    """
    path = path.with_name("checkpoint.safetensors")
    facts = read_facts(path)
    if facts is None or facts["options"]["pictures"] != fingerprint or facts["options"].get("labels"):
        return {}
    discriminator = load_discriminator(path, fakes.shape[1])
    right = {"training faces": float((metrics.judge_all(discriminator, known) > 0).mean()),
             "held-out faces": float((metrics.judge_all(discriminator, heldout) > 0).mean()),
             "generated": float((metrics.judge_all(discriminator, fakes) < 0).mean())}
    print("the discriminator of the run is right on " + ", ".join(f"{share:.1%} of {name}" for name, share in right.items())
          + (": it knows the training faces by heart" if right["training faces"] > right["held-out faces"] + 0.1 else ""))
    return right


def judge_attributes(generator, where, options):
    """Whether a conditional generator draws what it is asked for, printed and returned, with a figure; {} where it is none."""
    if not generator or not generator.plan.labels:
        return {}
    names = list(generator.plan.labels)
    if not set(names) <= set(DataReader(options.real, 1).manifest.get("attributes", [])):
        print(f"note: {options.real} has no labels by which to tell whether the attributes are there (pretreat.py --attributes)")
        return {}
    training, heldout = (DataReader(options.real, 1, split=split, where=where, conditional=",".join(names))
                         for split in ("train", "heldout"))
    shown = metrics.attributes_shown(generator, training, heldout, options.seed)
    print("\na small network, trained on the labels of real faces, is right about"
          + "".join(f"\n{name:18}" + ", ".join(f"{share:.1%} {what}" for what, share in shares.items())
                    for name, shares in shown.items()))
    usual = {name: max((-1, 1), key=labels.count) for name, labels in generator.plan.labels.items()}
    asked = {"as most faces": usual}
    asked |= {f"{'' if usual[name] < 0 else 'not '}{name}": usual | {name: -usual[name]} for name in names}
    rows = {title: draw_faces(generator, face_inputs(generator.plan, range(12), labels)) for title, labels in asked.items()}
    figures.save_rows(options.out / "attributes.png", rows)
    return shown


def main():
    """The command: reads its options, gathers the faces, scores them, and writes table, file and page."""
    options = read_options()
    path = options.fake or find_generator()
    generator, facts = load_generator(path) if path.suffix == ".safetensors" else (None, {"where": "", "pictures": ""})
    if generator:
        print(f"{path}: {describe_generator(facts)}")
    heldout, training = (DataReader(options.real, 1, split=split, where=facts["where"]) for split in ("heldout", "train"))
    if not SIZES[0] <= heldout.size <= SIZES[-1]:
        raise UserError(f"{options.real}: faces of {heldout.size} px cannot be scored; pack them with pretreat.py --size 64, "
                        f"or from {SIZES[0]} to {SIZES[-1]}")
    runtime.choose_device(options.device)
    fakes = read_fakes(path, generator, min(options.n, len(heldout), len(training)), heldout.size, options.seed)
    count = len(fakes)
    if count < FEWEST:
        raise UserError(f"{count} faces are too few, scores need {FEWEST}: {path} must hold so many, and {options.real} as many "
                        f"held out of training (it has {len(heldout)}; pretreat.py --holdout, and then train again)")
    print(f"comparing {count:,} faces with as many that were held out of training"
          + (f"; {options.n:,} were asked for, but there are no more" if count < options.n else ""))
    if count < FEW:
        print(f"note: so few make noisy scores; with {FEW} held out, before training, they mean more (pretreat.py --holdout)")
    same_split = facts["pictures"] in ("", training.fingerprint())  # nothing is known of pictures, nor of older weights
    if not same_split:
        print(f"note: these weights were trained on other faces than those of {options.real}, perhaps on some that are held out "
              "here: the scores may flatter them")
    inception = fid.load_inception(fid.find_inception(options.inception)) if options.fid or options.inception else None
    options.out.mkdir(parents=True, exist_ok=True)

    real_faces = heldout.faces[heldout.rows[chosen(len(heldout), count, options.seed)]]
    known_faces = training.faces[training.rows[chosen(len(training), count, options.seed)]]
    plan = generator.plan if generator else Plan(size=heldout.size)
    sets = {"held out": real_faces, "generated": fakes,
            **metrics.baselines(known_faces, plan, options.seed)}
    distances, places = (np.split(found, len(sets)) for found in metrics.nearest(np.concatenate(list(sets.values())), training))
    sets = {name: SimpleNamespace(faces=faces, distances=some, features=fid.features(inception, faces) if inception else None)
            for (name, faces), some in zip(sets.items(), distances)}
    reals = sets.pop("held out")
    scores = {name: score(some, reals, options.seed) for name, some in sets.items()}
    print(f"\n{table(scores)}\n\n{LEGEND}")
    right = judge_discriminator(path, fakes, real_faces, known_faces, training.fingerprint())
    shown = judge_attributes(generator, facts["where"], options)

    write_json(options.out / "scores.json", {
        "fake": str(path), "real": options.real, "n": count, "seed": options.seed, "scores": scores,
        "weights were trained on the rest of these faces": same_split, "discriminator is right": right, "attributes": shown})
    closest = sets["generated"].distances.argsort()[:10]
    copied = training.faces[training.rows[places[1][closest]]]
    figures.save_report(options.out / "report.png", fakes[:100], real_faces[:100], fakes[closest], copied, scores)
    print(f"{options.out}/scores.json has the numbers, {options.out}/report.png the page to look at")


if __name__ == "__main__":
    runtime.run_command(main)
