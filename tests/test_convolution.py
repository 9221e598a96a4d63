import numpy as np
import paddle
import paddle.nn as nn
import pytest

from convolution import FEW_POSITIONS, Conv2D, Conv2DTranspose, by_the_batch

# kernel, stride, padding, H, h
GEOMETRIES = [(4, 2, 1, 8, 4), (4, 1, 0, 4, 1), (4, 2, 1, 4, 2), (3, 1, 1, 4, 4), (5, 2, 2, 7, 4)]


def compare(ours, theirs, size):
    """Both give the same output, gradient of the input and gradient of the weights."""
    theirs.set_state_dict(ours.state_dict())
    x = paddle.randn([6, 5, size, size])
    results = []
    for layer in (ours, theirs):
        layer.train()
        own = x.clone().detach()
        own.stop_gradient = False
        y = layer(own)
        weighting = paddle.to_tensor(np.random.default_rng(0).standard_normal(y.shape).astype("float32"))
        (y * weighting).sum().backward()
        results.append([array.numpy() for array in (y, own.grad, *(weight.grad for weight in layer.parameters()))])
    for mine, other in zip(*results):
        assert mine.shape == other.shape and np.abs(mine - other).max() < 1e-5 * np.abs(other).max()


@pytest.mark.parametrize("kernel, stride, padding, large, small", GEOMETRIES)
def test_both_layers_are_paddles_own(kernel, stride, padding, large, small):
    compare(Conv2D(5, 7, kernel, stride, padding, None),
            nn.Conv2D(5, 7, kernel, stride, padding, bias_attr=False), large)
    compare(Conv2D(5, 7, kernel, stride, padding, None, bias=True), nn.Conv2D(5, 7, kernel, stride, padding), large)
    assert Conv2D(5, 7, kernel, stride, padding, None)(paddle.ones([2, 5, large, large])).shape == [2, 7, small, small]
    added = 1 if kernel == 5 and stride == 2 else 0  # so that it doubles the size
    for bias in (False, None):
        compare(Conv2DTranspose(5, 7, kernel, stride, padding, None, bias is None),
                nn.Conv2DTranspose(5, 7, kernel, stride, padding, added, bias_attr=bias), small)
    if stride == 2:
        doubled = Conv2DTranspose(5, 7, kernel, stride, padding, None)(paddle.ones([2, 5, small, small]))
        assert doubled.shape == [2, 7, 2 * small, 2 * small]


def test_a_frozen_layer_still_passes_gradients_on():
    layer = Conv2D(5, 7, 4, 2, 1, None)
    layer.weight.stop_gradient = True
    x = paddle.randn([2, 5, 8, 8])
    x.stop_gradient = False
    layer(x).sum().backward()
    assert layer.weight.grad is None and float(x.grad.abs().sum()) > 0


def test_the_whole_batch_is_multiplied_in_training_and_on_small_maps_alone():
    layer, x = Conv2D(5, 7, 4, 2, 1, None), paddle.ones([1])
    assert by_the_batch(layer, x, FEW_POSITIONS) and not by_the_batch(layer, x, FEW_POSITIONS + 1)
    layer.eval()
    assert not by_the_batch(layer, x, FEW_POSITIONS)
