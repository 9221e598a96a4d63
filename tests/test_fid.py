from support.cli import UserError

import hashlib
import pickle
import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np
import paddle
import pytest

from scoring import fid
from torch_format import Storage, Tensor


def sample(count, mean, factor, seed=0):
    """Rows whose mean is exactly `mean` and whose covariance is exactly factor·factorᵀ."""
    rows = np.random.default_rng(seed).standard_normal((count, len(mean)))
    rows -= rows.mean(axis=0)
    return rows @ np.linalg.inv(np.linalg.cholesky(np.cov(rows, rowvar=False))).T @ np.transpose(factor) + mean


def test_the_frechet_distance_of_known_gaussians():
    a, b = sample(50, [1, 2, 3], np.diag([1, 2, 3]), seed=1), sample(70, [1, 0, 7], np.diag([4, 2, 1]), seed=2)
    assert fid.frechet_distance(a, b) == pytest.approx((4 + 16) + (9 + 0 + 4))
    assert fid.frechet_distance(b, a) == pytest.approx(33)
    one, other = np.array([[2, 0], [1, 1]]), np.array([[1, 3], [0, 2]])  # covariances that do not commute
    product = one @ one.T @ other @ other.T
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))  # the trace of a 2×2 matrix's root
    assert fid.frechet_distance(sample(9, [0, 0], one), sample(9, [0, 0], other)) == pytest.approx(6 + 14 - 2 * root)


def test_the_frechet_distance_to_itself_is_0():
    a = sample(50, [1, 2, 3], np.array([[1, 0, 0], [2, 1, 0], [3, 0, 5]])).astype("float32")
    assert fid.frechet_distance(a, a[::-1]) == pytest.approx(0, abs=1e-5)


def test_singular_covariances(capsys):
    random = np.random.default_rng(0)
    a, b = random.standard_normal((6, 40)), random.standard_normal((8, 40)) + 1
    centred_a, centred_b = a - a.mean(axis=0), b - b.mean(axis=0)
    # the trace of √(AᵀA BᵀB) is the sum of the singular values of ABᵀ
    root = np.linalg.svd(centred_a @ centred_b.T, compute_uv=False).sum() / np.sqrt(5 * 7)
    expected = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + (centred_a ** 2).sum() / 5 + (centred_b ** 2).sum() / 7 - 2 * root
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fid.frechet_distance(a, b) == pytest.approx(expected, rel=1e-5)
        assert fid.frechet_distance(np.ones((5, 3)), np.zeros((5, 3))) == pytest.approx(3, abs=1e-5)  # no variance at all
    assert capsys.readouterr() == ("", "")


def test_a_product_without_a_root_and_one_without_a_real_root(monkeypatch):
    sqrtm = fid.linalg.sqrtm
    a, b = sample(9, [0, 0, 0], np.diag([1, 2, 0])), sample(9, [0, 0, 1], np.diag([3, 2, 0]))
    monkeypatch.setattr(fid.linalg, "sqrtm", lambda x: sqrtm(x) if np.linalg.matrix_rank(x) == 3 else x + np.nan)
    assert fid.frechet_distance(a, b) == pytest.approx(4 + 1, abs=1e-4)
    monkeypatch.setattr(fid.linalg, "sqrtm", lambda x: sqrtm(x) + 0.01j)
    with pytest.raises(UserError, match="9 and 9 faces.*more faces"):
        fid.frechet_distance(a, b)


def test_the_kernel_distance_is_the_papers():
    a, b = np.random.default_rng(0).standard_normal((2, 5, 3))

    def kernel(x, y):
        return (sum(x * y) / 3 + 1) ** 3

    pairs = [(i, j) for i in range(5) for j in range(5)]
    expected = (sum(kernel(a[i], a[j]) + kernel(b[i], b[j]) for i, j in pairs if i != j) / 20
                - 2 * sum(kernel(a[i], b[j]) for i, j in pairs) / 25)
    assert fid.squared_mmd(a, b) == pytest.approx(expected)
    mean, deviation = fid.kernel_distance(a.astype("float32"), b.astype("float32"), seed=0)  # every subset is all of them
    assert mean == pytest.approx(expected, rel=1e-5) and deviation == pytest.approx(0, abs=1e-9)


def test_the_kernel_distance_is_unbiased_and_grows_with_the_distance(monkeypatch):
    random = np.random.default_rng(0)
    estimates = [fid.squared_mmd(*random.standard_normal((2, 20, 4))) for _ in range(2000)]
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates)) < 3 * error and min(estimates) < 0
    monkeypatch.setattr(fid, "KID_FACES", 50)
    a, b = random.standard_normal((2, 300, 8)).astype("float32")
    near, far, farther = (fid.kernel_distance(a, b[:200] + shift, seed=3) for shift in (0, 0.5, 1))
    assert abs(near[0]) < 0.05 < far[0] < farther[0] and near[1] > 0
    assert fid.kernel_distance(a, b[:200], seed=3) == near != fid.kernel_distance(a, b[:200], seed=4)


@pytest.fixture(scope="module")
def inception():
    paddle.seed(0)
    return fid.Inception()


def test_inception(inception):
    trained = [weight for weight in inception.parameters() if not weight.stop_gradient]
    assert sum(weight.size for weight in trained) == 21_785_568  # torchvision's, less its last layer
    names = set(inception.state_dict())
    assert {"Conv2d_1a_3x3.conv.weight", "Mixed_5b.branch5x5_2.bn.bias", "Mixed_6e.branch7x7dbl_5.bn._variance",
            "Mixed_7c.branch3x3dbl_3b.bn._mean", "Mixed_7b.branch_pool.conv.weight"} <= names and len(names) == 94 * 5
    faces = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    seen = fid.features(inception, faces, batch_size=2)
    assert seen.shape == (3, 2048) and seen.dtype == np.float32 and seen.std(axis=0).max() > 0
    assert np.abs(fid.features(inception, faces[2:]) - seen[2:]).max() < 1e-4 * np.abs(seen).max()


@pytest.fixture
def trust(monkeypatch, tmp_path):
    """trust(content) → a file whose checksum is the one that is wanted."""

    def trust(content):
        monkeypatch.setattr(fid, "SHA256", hashlib.sha256(content).hexdigest())
        (tmp_path / "weights.pth").write_bytes(content)
        return tmp_path / "weights.pth"

    return trust


formats = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def test_inception_is_loaded_from_torchs_names(inception, save, trust):
    weights = {name.replace("._mean", ".running_mean").replace("._variance", ".running_var"): weight.numpy() + np.float32(0.01)
               for name, weight in inception.state_dict().items()}
    tensors = OrderedDict()
    for name, array in weights.items():  # stored in another order, as those of a network that came from TensorFlow may be
        strides = tuple(stride // 4 for stride in np.asfortranarray(array).strides)
        tensors[name] = Tensor(Storage(array.ravel("F")), 0, array.shape, strides)
    tensors["fc.bias"] = Tensor(Storage(np.zeros(3, np.float32)), 0, (3,), (1,))
    loaded = fid.load_inception(trust(save(tensors, True)))
    for (name, ours), theirs in zip(loaded.state_dict().items(), weights.values()):
        assert (ours.numpy() == theirs).all(), name
    assert not loaded.training


def test_weights_of_another_network_are_refused(save, trust):
    path = trust(save({"fc.bias": Tensor(Storage(np.zeros(3, np.float32)), 0, (3,), (1,))}, True))
    with pytest.raises(UserError, match="weights.pth: inception.Conv2d_1a_3x3.conv.weight is missing"):
        fid.load_inception(path)


class Bomb:
    """A pickle that makes a file when it is opened."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return open, (self.mark, "w")


@formats
def test_a_file_that_would_run_code_does_not(save, trust, tmp_path, zipped):
    mark = tmp_path / "mark"
    pickle.loads(pickle.dumps(Bomb(mark))).close()
    mark.unlink()  # so it works
    path = trust(save({"fc.bias": Bomb(mark)}, zipped))
    with pytest.raises(UserError, match=r"weights\.pth: .*io\.open"):
        fid.load_inception(path)
    assert not mark.exists()


def test_a_file_with_another_checksum_is_not_parsed(trust, tmp_path, monkeypatch):
    monkeypatch.setattr(fid, "read_torch", pickle.loads)  # which would run it
    path = trust(b"the right one")
    path.write_bytes(pickle.dumps(Bomb(tmp_path / "mark")))
    with pytest.raises(UserError, match=r"weights\.pth: not pytorch-fid's.*https://.*--inception$") as error:
        fid.load_inception(path)
    assert "\n" not in str(error.value) and not (tmp_path / "mark").exists()


def test_the_weights_are_downloaded_once(server, tmp_path, monkeypatch):
    server.content = b"weights"
    monkeypatch.setattr(fid, "URL", server.url + "/some/inception.pth")
    monkeypatch.setattr(fid, "SHA256", hashlib.sha256(server.content).hexdigest())
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    path = fid.find_inception()
    assert path == tmp_path / ".cache" / "torch" / "hub" / "checkpoints" / "inception.pth"
    assert path.read_bytes() == server.content and fid.find_inception() == path and len(server.asked) == 1
    path.unlink()
    server.status = 404
    with pytest.raises(UserError, match="404.*--inception$"):
        fid.find_inception()


def test_a_path_that_is_given_must_be_a_file(tmp_path):
    with pytest.raises(UserError, match=r"missing\.pth: no such file; fetch https://"):
        fid.find_inception(tmp_path / "missing.pth")
    (tmp_path / "here.pth").touch()
    assert fid.find_inception(str(tmp_path / "here.pth")) == tmp_path / "here.pth"
