"""All scores of a set of faces, and the table that shows those of several sets."""
from functools import partial
from types import SimpleNamespace

import numpy as np

from scoring import fid, metrics
from training.randomness import draws

COLUMNS = {"swd_mean": ("SWD", "{:.1f}"), "ms_ssim": ("MS-SSIM", "{:.3f}"), "two_sample": ("two-sample", "{:.3f}"),
           "two_sample_error": ("±", "{:.3f}"), "nearest": ("nearest", "{:.2f}"), "nearest_1%": ("closest 1%", "{:.2f}"),
           "fid": ("FID", "{:.1f}"), "kid": ("KID", "{:.4f}"), "kid_error": ("±", "{:.4f}")}
LEGEND = """SWD         sliced Wasserstein distance of patches, x 1000, mean over the levels; lower is better
MS-SSIM     similarity of random pairs; best as that of the real faces, more means less variety
two-sample  how often a small network tells them from real faces; 0.5 is perfect
nearest     median distance to the nearest training face, divided by that of held-out faces: near 0 for copies, small for blurred
            faces (the real faces are training faces: for them it is the nearest other training face)
closest 1%  the same with the 1% quantile in place of the median"""


def chosen(available, count, seed):
    """Which of `available` things to take, `count` at most: int64 places, chosen at random, in order."""
    return np.sort(draws(seed, "chosen").permutation(available)[:count])


def score(some, reals, seed):
    """All scores of a set of faces, by name. Both sets have `faces`, `distances` to training faces, and `features` or None."""
    distances = metrics.sliced_wasserstein(some.faces, reals.faces, seed)
    accuracy, error = metrics.two_sample_accuracy(some.faces, reals.faces, seed)
    scores = {**{f"swd_{size}": distance for size, distance in distances.items()},
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
    sets = {name: SimpleNamespace(faces=some, distances=far, features=seen)
            for (name, some), far, seen in zip(faces.items(), distances, features)}
    reals, scores = sets.pop("held out"), {}
    for name, some in sets.items():
        scores[name] = score(some, reals, seed)
        done("scores", 1 / len(sets))
    similar = sets["generated"].distances.argsort()[:10]
    copied = training.rows[closest[list(faces).index("generated")][similar]]
    return scores, (faces["generated"][similar], training.faces[copied])


def table(scores):
    """The scores of all sets (name of the set → name of the score → number; one is "generated") as lines of text."""
    columns = [key for key in COLUMNS if key in scores["generated"]]
    rows = [["", *(COLUMNS[key][0] for key in columns)]]
    rows += [[name, *(COLUMNS[key][1].format(some[key]) for key in columns)] for name, some in scores.items()]
    return "\n".join(row[0].ljust(18) + "".join(cell.rjust(12) for cell in row[1:]) for row in rows)
