"""Precision, recall, density and coverage: how much of two sets of features lies where the other one does.

A set is taken to fill the balls around its members, each as large as the distance to the member's k-th neighbour in the set.
"""
import numpy as np

PRECISION_K, DENSITY_K = 3, 5  # neighbours, as in Kynkäänniemi et al. 2019 and in Naeem et al. 2020


def neighbour_scores(fakes, reals):
    """The four scores of as many fakes as reals, features float32 [N, d]: a dict.

    precision  share of fakes inside a ball of a real one: are they like real faces?
    recall     share of reals inside a ball of a fake one: are all kinds of faces drawn? (Both Kynkäänniemi et al. 2019)
    density    in how many real balls a fake lies, of the k that are expected: as precision, but one odd face counts for little
    coverage   share of real balls with a fake inside: as recall, but odd fakes cannot raise it (both Naeem et al. 2020)
    """
    between = distances(fakes, reals)
    within_reals, within_fakes = (np.partition(distances(some, some), DENSITY_K, axis=1) for some in (reals, fakes))

    def radii(within, k):  # the nearest of all is the member itself
        return np.sort(within[:, :DENSITY_K + 1], axis=1)[:, k]

    inside = between < radii(within_reals, DENSITY_K)
    return {"precision": float((between < radii(within_reals, PRECISION_K)).any(axis=1).mean()),
            "recall": float((between.T < radii(within_fakes, PRECISION_K)).any(axis=1).mean()),
            "density": float(inside.sum(axis=1).mean() / DENSITY_K), "coverage": float(inside.any(axis=0).mean())}


def distances(some, others):
    """Squared distances of all pairs: float32 [N, M]."""
    squares = [(features ** 2).sum(axis=1) for features in (some, others)]
    return np.maximum(squares[0][:, None] + squares[1] - 2 * some @ others.T, 0)
