import numpy as np
import paddle
import pytest

import network
from network import SIZES, Discriminator, Generator, discriminator_loss, draw_faces, generator_loss
from randomness import face_noise


def trainable(layer):
    return sum(weight.size for weight in layer.parameters() if not weight.stop_gradient)


def test_the_networks_at_64_are_dcgan():
    assert trainable(Generator()) == 3_576_704 and trainable(Discriminator()) == 2_765_568


@pytest.mark.parametrize("size", SIZES)
def test_every_size_goes_from_noise_to_a_picture_to_a_logit(size):
    pictures = Generator(size, z_dim=7, channels=2)(paddle.randn([3, 7]))
    assert pictures.shape == [3, 3, size, size] and float(pictures.abs().max()) <= 1
    assert Discriminator(size, channels=2)(pictures).shape == [3]


@pytest.mark.parametrize("size", [8, 48, 512])
def test_another_size_fails_with_a_sentence(size):
    with pytest.raises(ValueError, match=f"{size} px.*16, 32, 64, 128, 256"):
        Generator(size)


def test_initial_weights():
    for name, weight in [*Generator().named_parameters(), *Discriminator().named_parameters()]:
        if weight.stop_gradient:
            continue  # running statistics
        scale_of_bn = name.startswith("bn") and name.endswith("weight")
        mean, deviation = (1, 0.02) if scale_of_bn else (0, 0) if name.endswith("bias") else (0, 0.02)
        assert weight.numpy().mean() == pytest.approx(mean, abs=0.01), name
        assert weight.numpy().std() == pytest.approx(deviation, abs=0.005), name


def test_batch_norm_keeps_half_of_its_old_statistics():
    layer = network.bn(1)
    layer(paddle.full([8, 1, 2, 2], 10.0))
    assert layer._mean.numpy() == pytest.approx(5)
    layer(paddle.full([8, 1, 2, 2], 10.0))
    assert layer._mean.numpy() == pytest.approx(7.5)


def test_the_discriminator_sees_colours_before_any_batch_norm():
    names = [name for name, _ in Discriminator().named_sublayers()]
    assert "bn1" not in names and [name for name in names if name.startswith("bn")] == ["bn2", "bn3", "bn4"]


def test_losses_are_the_papers():
    real, fake = np.array([2.0, -1.0], "float32"), np.array([0.5, -3.0], "float32")
    D_real, D_fake = 1 / (1 + np.exp(-real)), 1 / (1 + np.exp(-fake))
    assert float(discriminator_loss(paddle.to_tensor(real), paddle.to_tensor(fake))) == pytest.approx(
        -np.log(D_real).mean() - np.log(1 - D_fake).mean(), rel=1e-5)
    assert float(generator_loss(paddle.to_tensor(fake))) == pytest.approx(-np.log(D_fake).mean(), rel=1e-5)


def test_losses_stay_finite_for_a_sure_discriminator():
    sure = paddle.to_tensor([300.0])
    assert float(discriminator_loss(-sure, sure)) == pytest.approx(600) and float(generator_loss(-sure)) == pytest.approx(300)


def test_a_face_is_drawn_the_same_alone_and_in_company():
    generator = Generator(16, channels=4)
    generator(paddle.randn([8, 100]))  # so that the batch-norm statistics are not those of the start
    z = face_noise(range(9), 100)
    faces = draw_faces(generator, z)
    assert generator.training and faces.dtype == np.uint8 and faces.shape == (9, 16, 16, 3)
    assert (draw_faces(generator, z[::-1], batch_size=2)[::-1] == faces).all()
    assert (draw_faces(generator, face_noise([4], 100))[0] == faces[4]).all() and (faces[3] != faces[4]).any()


def test_the_fully_connected_block():
    layer = network.fc(300, 200)
    assert layer(paddle.ones([2, 300])).shape == [2, 200] and float(layer.weight.std()) == pytest.approx(0.02, rel=0.1)
