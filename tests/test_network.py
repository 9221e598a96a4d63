import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

import network
from network import LOSSES, SIZES, bce_d_loss, bce_g_loss, draw_faces
from scoring.facefeatures import AID, load_features
from training.randomness import face_inputs
from zoo import Plan, build_discriminator, build_generator


def trainable(layer):
    return sum(weight.size for weight in layer.parameters() if not weight.stop_gradient)


def test_the_networks_at_64_are_dcgan():
    assert trainable(build_generator(Plan())) == 3_576_704 and trainable(build_discriminator(Plan(), "bce")) == 2_765_568


@pytest.mark.parametrize("size", SIZES)
def test_every_size_goes_from_noise_to_a_picture_to_a_logit(size):
    plan = Plan(size=size, z_dim=7, channels=2)
    pictures = build_generator(plan)(paddle.randn([3, 7]))
    assert pictures.shape == [3, 3, size, size] and float(pictures.abs().max()) <= 1
    assert build_discriminator(plan, "bce")(pictures).shape == [3]


def test_batch_norm_keeps_half_of_its_old_statistics():
    layer = network.bn(1)
    layer(paddle.full([8, 1, 2, 2], 10.0))
    assert layer._mean.numpy() == pytest.approx(5)
    layer(paddle.full([8, 1, 2, 2], 10.0))
    assert layer._mean.numpy() == pytest.approx(7.5)


def test_the_discriminator_sees_colours_before_any_batch_norm():
    names = [name for name, _ in build_discriminator(Plan(), "bce").named_sublayers()]
    assert "bn1" not in names and [name for name in names if name.startswith("bn")] == ["bn2", "bn3", "bn4"]


def test_losses_are_the_papers():
    real, fake = np.array([2.0, -1.0], "float32"), np.array([0.5, -3.0], "float32")
    D_real, D_fake = 1 / (1 + np.exp(-real)), 1 / (1 + np.exp(-fake))
    assert float(bce_d_loss(paddle.to_tensor(real), paddle.to_tensor(fake))) == pytest.approx(
        -np.log(D_real).mean() - np.log(1 - D_fake).mean(), rel=1e-5)
    assert float(bce_g_loss(paddle.to_tensor(fake))) == pytest.approx(-np.log(D_fake).mean(), rel=1e-5)


def test_losses_stay_finite_for_a_sure_discriminator():
    sure = paddle.to_tensor([300.0])
    assert float(bce_d_loss(-sure, sure)) == pytest.approx(600) and float(bce_g_loss(-sure)) == pytest.approx(300)


def test_a_face_is_drawn_the_same_alone_and_in_company():
    generator = build_generator(Plan(size=16, channels=4))
    generator(paddle.randn([8, 100]))  # so that the batch-norm statistics are not those of the start
    z = face_inputs(Plan(), range(9))
    faces = draw_faces(generator, z)
    assert generator.training and faces.dtype == np.uint8 and faces.shape == (9, 16, 16, 3)
    assert (draw_faces(generator, z[::-1], batch_size=2)[::-1] == faces).all()
    assert (draw_faces(generator, face_inputs(Plan(), [4]))[0] == faces[4]).all() and (faces[3] != faces[4]).any()


def test_the_fully_connected_block():
    layer = network.fc(300, 200)
    assert layer(paddle.ones([2, 300])).shape == [2, 200] and float(layer.weight.std()) == pytest.approx(0.02, rel=0.1)


def test_every_loss_is_least_where_its_player_wins():
    sure = paddle.to_tensor([1.0, 1.0]) * 5
    for discriminator_loss, generator_loss in LOSSES.values():
        assert discriminator_loss(sure, -sure) < discriminator_loss(sure, sure) < discriminator_loss(-sure, sure)
        assert generator_loss(sure) < generator_loss(-sure)


def test_hinge_and_least_squares_by_hand():
    real, fake = paddle.to_tensor([2.0, 0.5]), paddle.to_tensor([-3.0, 0.0])
    assert [float(loss(real, fake)) for loss in (LOSSES["hinge"][0], LOSSES["lsgan"][0])] == [0.75, pytest.approx(1.5625)]
    assert [float(loss(fake)) for loss in (LOSSES["hinge"][1], LOSSES["lsgan"][1])] == [1.5, pytest.approx(4.25)]


@pytest.mark.parametrize("side", [4, 8])
@pytest.mark.parametrize("training", [True, False])
def test_resize_convolution_repeats_pixels_and_convolves(side, training):
    layer = network.resize_conv(5, 7)
    layer.training = training
    pictures = paddle.randn([3, 5, side, side])
    repeated = paddle.to_tensor(pictures.numpy().repeat(2, axis=2).repeat(2, axis=3))
    wanted = paddle.nn.functional.conv2d(repeated, layer.weight.transpose([1, 0, 2, 3]).flip([2, 3]), padding=1)
    assert layer(pictures).numpy() == pytest.approx(wanted.numpy(), abs=1e-6)


def test_resize_convolution_has_no_checkerboard():
    """What comes out of constant maps is constant, but at the edges; a transposed convolution leaves a pattern."""
    maps = paddle.ones([1, 4, 8, 8])
    inside = {up: double(4, 3)(maps).numpy()[..., 2:-2, 2:-2] for up, double in network.UPSAMPLINGS.items()}
    assert inside["resize"].shape == inside["deconv"].shape == (1, 3, 12, 12)
    assert np.ptp(inside["resize"], axis=(2, 3)).max() < 1e-6 < 1e-3 < np.ptp(inside["deconv"], axis=(2, 3)).max()


def test_softmax_is_the_cross_entropy_of_two_outputs():
    outputs = paddle.randn([6, 2]) * 3
    real, fake = (F.cross_entropy(outputs, paddle.full([6], label, "int64")) for label in (1, 0))
    logits = network.to_logits(outputs)
    assert float(bce_d_loss(logits, logits)) == pytest.approx(float(real + fake), rel=1e-5)
    assert float(bce_g_loss(logits)) == pytest.approx(float(real), rel=1e-5)


def test_minimax_saturates_where_the_other_loss_is_steepest():
    def slope(loss, logit):
        logit = paddle.to_tensor([logit], stop_gradient=False)
        loss(logit).backward()
        return float(logit.grad.sum())

    assert float(network.minimax_g_loss(paddle.to_tensor([0.7]))) == pytest.approx(np.log(1 - 1 / (1 + np.exp(-0.7))), rel=1e-5)
    assert abs(slope(network.minimax_g_loss, -8.0)) < 0.001 and slope(bce_g_loss, -8.0) < -0.99


def test_smoothed_labels_are_those_of_the_reals_alone():
    d_loss, g_loss = network.choose_losses("bce", 0.1)
    best = paddle.to_tensor([np.log(0.9 / 0.1)], dtype="float32", stop_gradient=False)
    d_loss(best, paddle.to_tensor([-30.0])).backward()
    assert abs(float(best.grad.sum())) < 1e-6  # D is content with 0.9 for a real face
    assert float(d_loss(best, paddle.to_tensor([-30.0]))) == pytest.approx(-(0.9 * np.log(0.9) + 0.1 * np.log(0.1)), rel=1e-4)
    assert g_loss is bce_g_loss


@pytest.mark.parametrize("loss, smoothing", [*((loss, 0) for loss in LOSSES), ("bce", 0.1)])
def test_a_discriminator_that_minimises_its_loss_counts_as_certain(loss, smoothing):
    """So that a run can be warned whatever its loss; one that knows nothing does not count."""
    d_loss, _ = network.choose_losses(loss, smoothing)
    logits = [paddle.to_tensor([logit]) for logit in np.linspace(-5, 5, 101, dtype=np.float32)]
    nothing = paddle.to_tensor([0.0])
    real = min(logits, key=lambda logit: float(d_loss(logit, nothing)))
    fake = min(logits, key=lambda logit: float(d_loss(nothing, logit)))
    on_reals, on_fakes = network.certainty(loss, smoothing)
    assert F.sigmoid(real).item() > on_reals > 0.5 > on_fakes > F.sigmoid(fake).item()


def test_a_discriminator_with_an_aid_learns_without_changing_it():
    aid = load_features(AID)
    before = {name: tensor.numpy() for name, tensor in aid.state_dict().items()}
    for labels in ({}, {"Smiling": [1.0]}):
        discriminator, pictures = build_discriminator(Plan(channels=4, labels=labels), "bce", aid), paddle.rand([2, 3, 64, 64])
        known = [paddle.ones([2, 1])] if labels else []
        assert discriminator(pictures, *known).shape == [2 * 4]
        for judged in range(4):  # the picture, which counts twice, and two maps: each teaches G
            pictures.stop_gradient = False
            pictures.clear_gradient()
            discriminator(pictures, *known)[2 * judged:2 * judged + 2].sum().backward()
            assert float(pictures.grad.abs().sum()) > 0
        paddle.optimizer.Adam(0.1, parameters=discriminator.parameters()).step()
    assert all((tensor.numpy() == before[name]).all() for name, tensor in aid.state_dict().items())
