import paddle
import pytest

from training.players import frozen, update_average


def test_discriminator_gets_no_gradients_in_the_generators_updates(players_and_options):
    players, _ = players_and_options()
    D = players.D.network
    pictures = paddle.rand([4, 3, 16, 16])
    pictures.stop_gradient = False
    learning = [weight.name for weight in D.parameters() if not weight.stop_gradient]
    with frozen(D):
        D(pictures).sum().backward()
    assert all(weight.grad is None for weight in D.parameters()) and float(pictures.grad.abs().sum()) > 0
    assert [weight.name for weight in D.parameters() if not weight.stop_gradient] == learning


def test_the_average_has_its_half_life(players_and_options):
    players, _ = players_and_options()
    for tensor in players.G.network.state_dict().values():
        tensor.set_value(paddle.ones_like(tensor))
    for tensor in players.average.state_dict().values():
        tensor.set_value(paddle.zeros_like(tensor))
    for _ in range(4):  # 4 × 2,500 images are one half-life, late in a run
        update_average(players.average, players.G.network, images_seen=1e9, batch_size=2500, half_life=10_000)
    for tensor in players.average.state_dict().values():  # the batch-norm statistics too
        assert float(tensor.mean()) == pytest.approx(0.5, abs=1e-5)
    update_average(players.average, players.G.network, images_seen=100, batch_size=100, half_life=10_000)
    assert float(players.average.deconv1.weight.mean()) > 0.99  # early, it is short
    for tensor in players.G.network.state_dict().values():
        tensor.set_value(paddle.full_like(tensor, 7))
    update_average(players.average, players.G.network, images_seen=1e9, batch_size=1, half_life=0)
    assert all(float(tensor.min()) == 7 for tensor in players.average.state_dict().values())
