import pytest

from zoo import Plan, build_discriminator, build_generator


def test_initial_weights():
    for name, weight in [*build_generator(Plan()).named_parameters(), *build_discriminator(Plan(), "bce").named_parameters()]:
        if weight.stop_gradient:
            continue  # running statistics
        scale_of_bn = name.startswith("bn") and name.endswith("weight")
        mean, deviation = (1, 0.02) if scale_of_bn else (0, 0) if name.endswith("bias") else (0, 0.02)
        assert weight.numpy().mean() == pytest.approx(mean, abs=0.01), name
        assert weight.numpy().std() == pytest.approx(deviation, abs=0.005), name
