import numpy as np

from recipe import defaults
from training.draws import RunDraws


def test_numbers_are_keyed():
    draws = RunDraws(defaults(seed=1))
    chances = draws.chances("a", 2, 5)
    assert chances.shape == (5, 8) and (chances == draws.chances("a", 2, 5)).all()
    for other in (draws.chances("a", 3, 5), draws.chances("b", 2, 5), RunDraws(defaults(seed=2)).chances("a", 2, 5)):
        assert (chances != other).any()


def test_ranks_share_out_what_one_process_would_draw():
    recipe = defaults(d_steps=2, augment="diffaugment")
    one, two = RunDraws(recipe), [RunDraws(recipe, rank, 2) for rank in (0, 1)]
    one.begin(3, [6, 3, 16, 16])
    for draws in two:
        draws.begin(3, [3, 3, 16, 16])
    for key, tensor in one.tensors.items():
        assert all((draws.tensors[key].numpy() == tensor.numpy()[draws.rank::2]).all() for draws in two), key
    assert {purpose for purpose, _ in one.tensors} == {"z for D", "z for G", "changes of reals", "changes of fakes for D",
                                                       "changes of fakes for G"}
    assert np.unique([tensor.numpy()[0, 0] for (purpose, _), tensor in one.tensors.items() if purpose[0] == "z"]).size == 4
