"""Bounds on what visitors of the pages send."""
import math

from support import pages


def test_any_value_becomes_a_seed_and_a_number_of_faces():
    for odd in (math.nan, math.inf, -math.inf, "nan", "9" * 400, 10 ** 400, b"7"):
        assert 0 <= pages.seed(odd) <= pages.MAX_SEED
        assert 1 <= len(pages.seeds_from(odd, odd)) <= pages.MAX_FACES
