from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import paddle
import paddle.nn as nn
import pytest

import zoo
from network import conv, deconv, draw_faces, resize_conv
from training import checkpoint, convolution, layers, onednn
from training.layers import computing_in, run
from training.randomness import face_inputs
from training.weights import PRETRAINED

ROOT = Path(zoo.__file__).parent
PRECISIONS = {"float32": 1e-5, "bfloat16": 2e-2}
SLOW = (nn.Linear, nn.Flatten, nn.Unflatten, nn.Dropout, nn.ZeroPad2D, nn.BatchNorm1D)  # what Paddle computes in any case
fast = pytest.mark.skipif(not onednn.usable(), reason=f"oneDNN does not compute here: {onednn.library()}")


def results(compute, network, x):
    """What `compute` makes of x, and the gradients of a weighted sum of it, by name."""
    x = x.detach()
    x.stop_gradient = False
    for weight in network.parameters():
        weight.clear_gradient(False)
    y = compute(x)
    weighting = paddle.to_tensor(np.random.default_rng(1).standard_normal(y.shape, np.float32))
    (y * weighting).sum().backward()
    gradients = {name: weight.grad for name, weight in network.named_parameters() if not weight.stop_gradient}
    statistics = dict(network.named_buffers())  # of batch norm
    return {name: tensor.numpy().copy() for name, tensor in {"y": y, "dx": x.grad, **gradients, **statistics}.items()}


def compare(network, x, precision, within=1):
    """A network computed fast gives what Paddle's layers give, one after the other;
    `within` so many times the usual tolerance."""
    assert all(layers.is_fast(layer) or isinstance(layer, SLOW) for layer in network)

    def paddles(x):
        for layer in network:
            x = layer(x)
        return x

    def ours(x):
        with computing_in(precision):
            return run(list(network), x)

    x = x.astype(precision).astype("float32")
    state = {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}
    mine = results(ours, network, x)
    network.set_state_dict(state)  # running statistics moved
    theirs = results(paddles, network, x)
    network.set_state_dict(state)
    for name, wanted in theirs.items():
        assert mine[name].shape == wanted.shape, name
        assert np.abs(mine[name] - wanted).max() <= within * PRECISIONS[precision] * np.abs(wanted).max(), name


def players(arch, size, channels=6, **options):
    plan = zoo.Plan(arch, size, z_dim=10, channels=channels, up=options.pop("up", "resize"))
    yield zoo.build_generator(plan), [10]
    yield zoo.build_discriminator(plan, "bce", **options), [3, size, size]


@fast
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("arch, size, batch", [
    *(("dcgan", size, 2) for size in (16, 32, 128, 256)), ("dcgan", 64, 1), ("dcgan", 64, 5),
    *((arch, zoo.ZOO[arch].sizes[0], 3) for arch in zoo.ZOO), ("dcgan5x5", 16, 3)])
def test_every_layer_of_every_network_is_paddles_own(arch, size, batch, precision):
    paddle.seed(0)
    for network, shape in players(arch, size):
        x = paddle.randn([batch, *shape])
        for layer in network:
            if x.ndim == 4 and not isinstance(layer, SLOW):
                compare(nn.Sequential(layer), x, precision)
            x = layer(x).detach()


@fast
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("size", [16, 64, 128])
def test_a_generator_with_a_layer_more_is_paddles_own(size, precision):
    paddle.seed(0)
    x = paddle.randn([2, 10])
    for layer in zoo.build_generator(zoo.Plan(size=size, z_dim=10, channels=6, up="refine")):
        if x.ndim == 4:
            compare(nn.Sequential(layer), x, precision)
        x = layer(x).detach()


@fast
@pytest.mark.parametrize("arch", zoo.ZOO)
def test_only_these_layers_are_left_to_paddle(arch):
    for network, _ in players(arch, zoo.ZOO[arch].sizes[0]):
        assert {type(layer) for layer in network if not layers.is_fast(layer)} <= set(SLOW)


@fast
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("layer, shape", [
    (conv(1, 1), [1, 1, 16, 16]), (deconv(1, 1), [1, 1, 8, 8]), (resize_conv(1, 1), [1, 1, 4, 4]),
    (conv(1, 7, stride=1, padding=0), [3, 1, 4, 4]), (conv(3, 1, stride=1, padding=0, bias=True), [1, 3, 4, 4]),
    (deconv(7, 1, stride=1, padding=0), [3, 7, 1, 1]),
    (conv(5, 7, kernel=5, padding=2, bias=True), [2, 5, 13, 13]), (deconv(5, 7, kernel=5, padding=2, bias=True), [2, 5, 7, 7]),
    (deconv(5, 2, kernel=5, padding=2, bias=True), [2, 5, 7, 7]), (conv(5, 7, kernel=3, stride=1), [2, 5, 4, 4]),
    (deconv(5, 7, kernel=3, stride=1, bias=True), [2, 5, 4, 4]), (nn.Conv2D(3, 4, (1, 7), 1, "SAME"), [2, 3, 9, 9]),
    (conv(3, 4), [1, 3, 256, 256]), (nn.Conv2D(2, 5, 2, 3), [2, 2, 9, 9]), (nn.Conv2D(2, 5, 3, 3, 2), [2, 2, 9, 9]),
    (nn.BatchNorm2D(1), [3, 1, 2, 2]), (nn.MaxPool2D(2), [2, 3, 5, 5])])
def test_odd_shapes(layer, shape, precision):
    paddle.seed(0)
    for weight in layer.parameters():  # which had their values before the seed: in some runs a single output would be nearly 0
        weight.set_value(0.1 * paddle.randn(weight.shape))
    compare(nn.Sequential(layer), paddle.randn(shape), precision)


@fast
def test_layers_in_a_row_are_paddles_own_also_where_some_are_joined():
    """Batch norm and the ReLU behind it, activations in place, layers that are not fast, and evaluation mode."""
    paddle.seed(0)
    network = nn.Sequential(deconv(9, 8, stride=1, padding=0), nn.BatchNorm2D(8), nn.ReLU(), deconv(8, 6), nn.BatchNorm2D(6),
                            nn.LeakyReLU(0.2), nn.Tanh(), nn.LeakyReLU(0.3), nn.ZeroPad2D([0, 1, 0, 1]), conv(6, 4), nn.ReLU(),
                            nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4 * 4, 2), nn.Tanh())
    x = paddle.randn([5, 9, 1, 1])
    compare(network, x, "float32")
    network.eval()
    compare(network, x, "float32")
    compare(network, x, "bfloat16", within=5)  # rounded at every layer


@fast
def test_a_frozen_network_still_passes_gradients_on():
    network = nn.Sequential(conv(3, 5), nn.BatchNorm2D(5), nn.ReLU(), deconv(5, 2, bias=True))
    for weight in network.parameters():
        weight.stop_gradient = True
    x = paddle.randn([2, 3, 8, 8])
    x.stop_gradient = False
    run(list(network), x).sum().backward()
    assert all(weight.grad is None for weight in network.parameters()) and float(x.grad.abs().sum()) > 0


@fast
def test_the_input_of_the_first_layer_gets_no_gradient_that_nobody_wants(monkeypatch):
    asked, original = [], convolution.Convolution.__wrapped__.backward_data
    monkeypatch.setattr(convolution.Convolution.__wrapped__, "backward_data",
                        lambda self, *given: asked.append(self) or original(self, *given))
    layer, x = conv(3, 5), paddle.randn([2, 3, 8, 8])
    run([layer], x).sum().backward()
    assert float(layer.weight.grad.abs().sum()) > 0 and not asked
    x.stop_gradient = False
    run([layer], x).sum().backward()
    assert len(asked) == 1


@fast
def test_two_forward_passes_and_one_backward_add_up():
    """As in D's update."""
    paddle.seed(0)
    network, reals, fakes = nn.Sequential(conv(3, 5), nn.BatchNorm2D(5), nn.LeakyReLU(0.2)), *paddle.randn([2, 2, 3, 8, 8])
    gradients = []
    for compute in (lambda x: run(list(network), x), lambda x: nn.Sequential.forward(network, x)):
        network[0].weight.clear_gradient(False)
        (compute(reals).square().sum() - compute(fakes).square().mean()).backward()
        gradients.append(network[0].weight.grad.numpy().copy())
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-4, abs=1e-4 * float(np.abs(gradients[1]).max()))


@fast
def test_what_learns_is_settled_in_the_forward_pass():
    """D is frozen for G's updates, also between the two passes."""
    layer, x = conv(3, 5), paddle.randn([2, 3, 8, 8])
    y = run([layer], x)
    layer.weight.stop_gradient = True
    y.sum().backward()
    assert float(layer.weight.grad.abs().sum()) > 0


@fast
def test_a_layer_with_a_hook_is_computed_by_paddle():
    layer, x = nn.utils.spectral_norm(conv(3, 5)), paddle.randn([2, 3, 8, 8])
    layer.eval()  # so that no power iteration moves the weights between the two
    assert run([layer], x).numpy() == pytest.approx(layer(x).numpy())


@fast
def test_gradients_of_gradients_are_refused():
    network, reals = nn.Sequential(conv(3, 4, bias=True), nn.Tanh(), conv(4, 1)), paddle.randn([2, 3, 8, 8])
    reals.stop_gradient = False
    for weight in network.parameters():
        weight.stop_gradient = True
    with pytest.raises((RuntimeError, OSError), match="differentiated again"):
        paddle.grad(run(list(network), reals).sum(), reals, create_graph=True)


@fast
def test_the_precision_is_that_of_the_block_and_the_thread():
    layer, x = conv(3, 4), paddle.randn([2, 3, 8, 8])
    wanted = run([layer], x).numpy()
    with computing_in("bfloat16"), ThreadPoolExecutor(1) as thread:
        assert (run([layer], x).numpy() != wanted).any()
        assert (thread.submit(lambda: run([layer], x).numpy()).result() == wanted).all()
    assert (run([layer], x).numpy() == wanted).all()


@fast
@pytest.mark.parametrize("layer", [
    nn.Conv2D(4, 4, 3, groups=2), nn.Conv2D(4, 4, 3, dilation=2), nn.Conv2D(4, 4, 3, padding_mode="reflect"),
    nn.Conv2D(4, 4, (4, 4), (2, 1)), nn.Conv2DTranspose(4, 4, 3, 1, "SAME"), nn.BatchNorm2D(4, data_format="NHWC"),
    nn.LeakyReLU(-0.1), nn.MaxPool2D(3, 2), nn.MaxPool2D(2, return_mask=True), nn.Upsample(scale_factor=3)])
def test_a_layer_that_is_set_otherwise_is_left_to_paddle(layer):
    assert not layers.is_fast(layer)


@fast
def test_a_layer_with_a_hook_is_left_to_paddle():
    layer = nn.Tanh()
    assert layers.is_fast(layer)
    layer.register_forward_post_hook(lambda layer, given, y: y + 1)
    x = paddle.randn([1, 2, 3, 3])
    assert run([layer], x).numpy() == pytest.approx(paddle.tanh(x).numpy() + 1, abs=1e-6)


@fast
@pytest.mark.parametrize("layer", [conv(3, 4), deconv(3, 4), nn.BatchNorm2D(3)])
def test_another_number_of_channels_gets_a_sentence(layer):
    with pytest.raises(ValueError, match="takes 3 channels, but was given 5"):
        run([layer], paddle.randn([2, 5, 4, 4]))


@fast
@pytest.mark.parametrize("batch", [2, 33])
def test_a_face_of_full_width_is_drawn_the_same_alone_and_in_company(batch):
    generator, _ = checkpoint.load_generator(PRETRAINED)
    z = face_inputs(generator.plan, range(batch))
    together = draw_faces(generator, z)
    assert all((draw_faces(generator, z[row:row + 1])[0] == together[row]).all() for row in range(batch))


@fast
def test_several_threads_may_draw_at_once():
    generator = zoo.build_generator(zoo.Plan(size=32, z_dim=10, channels=8))
    generator.eval()
    z = [paddle.randn([7, 10]) for _ in range(24)]

    def draw(some):
        with paddle.no_grad():
            return generator(some).numpy()

    alone = [draw(some) for some in z]
    with ThreadPoolExecutor(6) as threads:
        assert all((one == other).all() for one, other in zip(threads.map(draw, z), alone))


@fast
def test_pictures_may_come_as_a_view():
    layer, x = conv(3, 4), paddle.randn([2, 8, 8, 3])
    view = x.transpose([0, 3, 1, 2])
    assert run([layer], view).numpy() == pytest.approx(layer(view).numpy(), abs=1e-6)
