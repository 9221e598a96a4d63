"""All scores of a set of faces, and the table that shows those of several sets."""
from functools import partial
from types import SimpleNamespace

import numpy as np

from scoring import fid, metrics
from scoring.facefeatures import face_features
from scoring.neighbours import neighbour_scores
from training.randomness import draws

ROWS = {"face_fd": ("face FD", "{:.1f}"), "precision": ("precision", "{:.2f}"), "recall": ("recall", "{:.2f}"),
        "density": ("density", "{:.2f}"), "coverage": ("coverage", "{:.2f}"), "swd_mean": ("SWD", "{:.1f}"),
        "ms_ssim": ("MS-SSIM", "{:.3f}"), "two_sample": ("two-sample", "{:.3f}"), "two_sample_error": ("±", "{:.3f}"),
        "nearest": ("nearest", "{:.2f}"), "nearest_1%": ("closest 1%", "{:.2f}"),
        "fid": ("FID", "{:.1f}"), "kid": ("KID", "{:.4f}"), "kid_error": ("±", "{:.4f}")}
LEGEND = """face FD     Fréchet distance of what a small network sees in faces; lower is better (it is not FID)
precision   share of them that lie among real faces, and density: how densely
recall      share of the real faces that lie among them, and coverage: that have one of them near; variety
SWD         sliced Wasserstein distance of patches, x 1000, mean over the levels; lower is better
MS-SSIM     similarity of random pairs; best as that of the real faces, more means less variety
two-sample  how often a small network tells them from real faces; 0.5 is perfect
nearest     median distance to the nearest training face, divided by that of held-out faces: near 0 for copies, small for blurred
            faces (the real faces are training faces: for them it is the nearest other training face)
closest 1%  the same with the 1% quantile in place of the median"""


def chosen(available, count, seed):
    """Which of `available` things to take, `count` at most: int64 places, chosen at random, in order."""
    return np.sort(draws(seed, "chosen").permutation(available)[:count])


def score(some, reals, seed):
    """All scores of a set of faces, by name. Both sets have `faces`, what `face_features` has `seen` in them, `distances` to
    training faces, and Inception's `features` or None."""
    distances = metrics.sliced_wasserstein(some.faces, reals.faces, seed)
    accuracy, error = metrics.two_sample_accuracy(some.faces, reals.faces, seed)
    scores = {"face_fd": fid.frechet_distance(some.seen, reals.seen), **neighbour_scores(some.seen, reals.seen),
              **{f"swd_{size}": distance for size, distance in distances.items()},
              "swd_mean": float(np.mean(list(distances.values()))), "ms_ssim": metrics.ms_ssim(some.faces, seed),
              "two_sample": accuracy, "two_sample_error": error}
    for name, share in (("nearest", 0.5), ("nearest_1%", 0.01)):  # faces less than a grey level apart count as equal
        scores[name] = float(np.quantile(some.distances, share) / max(1, np.quantile(reals.distances, share)))
    if some.features is not None:
        kid, deviation = fid.kernel_distance(some.features, reals.features, seed)
        scores.update(fid=fid.frechet_distance(some.features, reals.features), kid=kid, kid_error=deviation)
    return scores


def score_sets(faces, places, training, inception, seed, done):
    """All scores of each set but the held-out faces; and the ten generated faces nearest to training faces, with these.

    faces      sets by name, each uint8 [N, S, S, 3]; "held out", "generated" and "real faces" are among them
    places     of the "real faces" among the faces of `training`, a DataReader
    inception  for FID and KID, or None
    done       called with a stage ("nearest", "features" or "scores") and the share of it that is done
    """
    together = np.concatenate(list(faces.values()))
    itself = np.concatenate([places if name == "real faces" else np.full(len(some), -1) for name, some in faces.items()])
    distances, closest = (np.split(found, len(faces)) for found in metrics.nearest(
        together, training, itself, progress=partial(done, "nearest")))
    features = np.split(fid.features(inception, together), len(faces)) if inception else [None] * len(faces)
    done("features", 1)
    sets = {name: SimpleNamespace(faces=some, seen=face_features(some), distances=far, features=known)
            for (name, some), far, known in zip(faces.items(), distances, features)}
    reals, scores = sets.pop("held out"), {}
    for name, some in sets.items():
        scores[name] = score(some, reals, seed)
        done("scores", 1 / len(sets))
    similar = sets["generated"].distances.argsort()[:10]
    copied = training.rows[closest[list(faces).index("generated")][similar]]
    return scores, (faces["generated"][similar], training.faces[copied])


def table(scores):
    """The scores of all sets (name of the set → name of the score → number; one is "generated"), a line for each score."""
    lines = ["".ljust(12) + "".join(name.rjust(18) for name in scores)]
    lines += [ROWS[key][0].ljust(12) + "".join(ROWS[key][1].format(some[key]).rjust(18) for some in scores.values())
              for key in ROWS if key in scores["generated"]]
    return "\n".join(lines)
