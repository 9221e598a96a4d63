import numpy as np
import pytest

from scoring.neighbours import neighbour_scores


def points(centre, count=200, seed=0):
    return (np.random.default_rng(seed).standard_normal((count, 4)) + centre).astype(np.float32)


REALS = np.concatenate([points(0), points(100, seed=1)])


def test_all_scores_are_high_where_two_sets_lie_alike():
    scores = neighbour_scores(np.concatenate([points(0, seed=2), points(100, seed=3)]), REALS)
    assert min(scores[name] for name in ("precision", "recall", "coverage")) > 0.75
    assert scores["density"] == pytest.approx(1, abs=0.15)


def test_a_kind_of_faces_that_is_never_drawn_costs_recall_and_coverage_alone():
    scores = neighbour_scores(points(0, 400, seed=2), REALS)
    assert scores["precision"] > 0.75 and scores["density"] == pytest.approx(1, abs=0.15)
    assert scores["recall"] < 0.5 and scores["coverage"] < 0.5


def test_faces_like_no_real_one_cost_precision_and_density_alone():
    scores = neighbour_scores(np.concatenate([points(0, 200, seed=2), points(50, 200, seed=3)]), points(0, 400))
    assert scores["precision"] < 0.5 and scores["density"] < 0.6
    assert scores["recall"] > 0.75


def test_copies_of_a_few_faces_have_no_recall():
    assert neighbour_scores(points(0, 20).repeat(20, axis=0), points(0, 400))["recall"] == 0


def test_the_numbers_of_a_case_computed_by_hand():
    places = [0, 1, 2, 3, 4, 5, 6], [0.5, 9, 9, 9, 9, 9, 50]
    reals, fakes = (np.array([[x, 0.0] for x in some], np.float32) for some in places)
    # The third neighbours of the reals are 3, 2, 2, 2, 2, 2 and 3 away, the fifth 5, 4, 3, 3, 3, 4 and 5; the third neighbour
    # of the fake at 0.5 is 8.5 away, that of those at 9 not at all.
    assert neighbour_scores(fakes, reals) == pytest.approx(
        {"precision": 1 / 7, "recall": 1, "density": (4 + 5 * 1 + 0) / 5 / 7, "coverage": 5 / 7})
