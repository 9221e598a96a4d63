"""Which weights: those of a run, the pretrained ones, and what a file of them says in one phrase."""
from support.cli import UserError, printable

import math
import re
from pathlib import Path

from training.checkpoint import read_generator_facts

RUN = Path("Output")
BEST, LATEST, CHECKPOINT = "best.safetensors", "generator.safetensors", "checkpoint.safetensors"
PRETRAINED = Path(__file__).parent.parent / "pretrained" / "celeba64.safetensors"
MIN_IMAGES = 8000  # seen; before that a generator draws noise rather than faces


def weights_path(text):
    """An argparse type: a file of weights, or the name of pretrained ones, such as celeba64 → their file."""
    pretrained = PRETRAINED.parent / f"{text}.safetensors"
    named = pretrained.parent == PRETRAINED.parent and pretrained.exists() and not Path(text).exists()
    return pretrained if named else Path(text)


def pretrained():
    """The files of the pretrained generators, PRETRAINED first."""
    files = PRETRAINED.parent.glob("celeba*.safetensors")
    return sorted((path for path in files if not path.stem.endswith("-discriminator")), key=lambda path: path != PRETRAINED)


def best_score(folder, faces):
    """The face FD of folder/best.safetensors; infinite where there is none that was compared with so many faces."""
    try:
        scores = read_generator_facts(folder / BEST)["scores"]
    except UserError:
        return math.inf
    return scores.get("face_fd", math.inf) if scores.get("n") == faces else math.inf


def best_of(folder):
    """The best generator of a run, the latest where none was scored."""
    return folder / BEST if (folder / BEST).exists() else folder / LATEST


def find_generator(flag="--weights"):
    """The weights to draw with where none are named: those of a run that draws faces, else the pretrained ones.

    The runs are Output, Output-2, and so on; of several the best where all have scores of the same kind, else the newest. Says
    which it took. Raises UserError, which names the `flag`, where there are none.
    """
    found = {}
    for path in map(best_of, (RUN, *Path().glob(f"{RUN}-[0-9]*"))):
        if path.exists():
            facts = read_generator_facts(path)
            if facts["images_seen"] >= MIN_IMAGES:
                found[path] = facts
            else:
                print(f"note: the run in {path.parent} has seen {facts['images_seen']:,} images, too few for faces; "
                      f"{flag} {path} draws with it")
    if found:
        # A face FD depends on the faces that the generator's are compared with, and on how many they are.
        kinds = {(facts["size"], facts["pictures"], facts["scores"].get("n")) for facts in found.values()}
        comparable = len(kinds) == 1 and all("face_fd" in facts["scores"] for facts in found.values())
        path = (min(found, key=lambda path: found[path]["scores"]["face_fd"]) if comparable else
                max(found, key=lambda path: path.stat().st_mtime))
        print(f"weights: {path}, " + ("your run" if len(found) == 1 else
                                      f"the {'best' if comparable else 'newest'} of your {len(found)} runs"))
        return path
    if not PRETRAINED.exists():
        raise UserError(f"{RUN / LATEST}: no such file; train.py writes one, or name another with {flag}")
    print("weights: the pretrained generator; train.py makes your own")
    return PRETRAINED


def describe_generator(facts):
    """What `load_generator` found, as one phrase for people. Of the weights that it started from it gives the name alone."""
    scores = facts["scores"]
    score = (f", face FD {scores['face_fd']:.1f} against {scores['n']:,.0f} held-out faces" if {"face_fd", "n"} <= scores.keys()
             else "")
    which = f" with {facts['where']}" if facts["where"] else ""
    labels = f", conditional on {', '.join(facts['labels'])}" if facts["labels"] else ""
    name, *_ = re.split(r" \([\w-]+, \d+×", facts["from_"])  # it is NAME (ARCH, 64×64 px, …): see start.describe_start
    start = f", starting from {name}" if name else ""
    return printable(
        f"{facts['arch']}, {facts['size']}×{facts['size']} px, {facts['channels']} channels{labels}, trained {facts['step']:,} "
        f"steps ({facts['images_seen']:,} images seen) on {facts['data']}{which}, seed {facts['seed']}{start}{score}")
