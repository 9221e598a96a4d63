import numpy as np
import paddle
import pytest
from scipy.ndimage import gaussian_filter

from dataReader import DataReader
from scoring import metrics
from zoo import Plan, build_generator


@pytest.fixture(scope="module")
def faces():
    """600 "faces" of 32 px: a common picture, with smooth and sharp-edged parts of their own."""
    noise = np.random.default_rng(0).standard_normal((600, 32, 32, 3))
    smooth, detail = (gaussian_filter(noise, (0, deviation, deviation, 0)) for deviation in (4, 1))
    return (128 + smooth[0] * 1000 + smooth * 500 + 40 * (detail > 0.2)).clip(0, 255).astype(np.uint8)


def swd(some, others):
    return np.mean(list(metrics.sliced_wasserstein(some, others, directions=32).values()))


def test_baselines_are_in_order_of_quality(faces):
    reals, training = faces[:300], faces[300:]
    sets = metrics.baselines(training, Plan(size=32, z_dim=8, channels=4))
    assert all(some.shape == training.shape and some.dtype == np.uint8 for some in sets.values())
    distances = {name: swd(some, reals) for name, some in sets.items()}
    assert distances["real faces"] < 0.8 * min(distance for name, distance in distances.items() if name != "real faces")
    # pairs of real faces are as like as their kind is; the random generator draws one picture, noise has no likeness
    likeness = {name: metrics.ms_ssim(some) for name, some in sets.items()}
    assert likeness["real faces"] == pytest.approx(metrics.ms_ssim(reals), abs=0.03)
    assert likeness["noise"] < likeness["real faces"] < likeness["random generator"]
    accuracy = {name: metrics.two_sample_accuracy(some, reals)[0] for name, some in sets.items()}
    assert abs(accuracy["real faces"] - 0.5) < 0.15 < 0.3 < min(accuracy["noise"], accuracy["random generator"]) - 0.5


def test_the_distance_grows_with_blur_at_the_level_of_the_blur(faces):
    reals, others = faces[:300], faces[300:]
    assert swd(reals, reals) == 0 and swd(others, reals) == swd(others, reals)
    blurred = [gaussian_filter(others, (0, deviation, deviation, 0)) for deviation in (0.5, 1, 2)]
    distances = [metrics.sliced_wasserstein(some, reals, directions=32) for some in (others, *blurred)]
    assert list(distances[0]) == [32, 16]
    fine = [distance[32] for distance in distances]
    assert fine == sorted(fine) and fine[2] > 2 * fine[0] and distances[1][16] < 1.5 * distances[0][16]


def test_a_laplacian_pyramid_adds_up_again(faces):
    fine, coarse = metrics.laplacian_pyramid(faces[:2])
    doubled = np.zeros_like(fine)
    doubled[:, :, ::2, ::2] = coarse
    assert (fine + 4 * metrics.blur(doubled)).transpose(0, 2, 3, 1) == pytest.approx(faces[:2].astype(np.float32), abs=1e-2)


def test_ms_ssim_of_pairs(faces):
    assert metrics.ms_ssim(faces[:1].repeat(10, axis=0)) == pytest.approx(1)
    half_alike = np.concatenate([faces[:1].repeat(200, axis=0), faces[100:300]])
    assert metrics.ms_ssim(faces[:300]) < metrics.ms_ssim(half_alike) < 1


def test_pictures_that_are_each_others_negatives_are_not_alike(faces):
    """Negative terms count until the mean over the picture is taken."""
    noise = np.random.default_rng(0).integers(0, 256, (100, 64, 64, 3), dtype=np.uint8)
    assert metrics.ms_ssim(np.concatenate([noise, noise])) < 0.1


def test_one_window_of_ssim_is_the_papers_formula():
    one, other = (np.random.default_rng(seed).uniform(0, 255, (1, 3, 11, 11)) for seed in (0, 1))
    distance = np.arange(11) - 5
    weight = np.exp(-(distance[:, None] ** 2 + distance ** 2) / (2 * 1.5 ** 2))
    weight /= weight.sum()
    mean1, mean2 = ((weight * some).sum(axis=(2, 3)) for some in (one, other))
    variance1, variance2 = ((weight * some ** 2).sum(axis=(2, 3)) - mean ** 2 for some, mean in ((one, mean1), (other, mean2)))
    covariance = (weight * one * other).sum(axis=(2, 3)) - mean1 * mean2
    luminance, contrast = metrics.ssim_terms(one, other)
    assert luminance[..., 0, 0] == pytest.approx((2 * mean1 * mean2 + 6.5025) / (mean1 ** 2 + mean2 ** 2 + 6.5025), rel=1e-4)
    assert contrast[..., 0, 0] == pytest.approx((2 * covariance + 58.5225) / (variance1 + variance2 + 58.5225), rel=1e-4)


def test_two_samples_are_judged_on_faces_that_were_not_learned(faces):
    reals, others = faces[:300], faces[300:]
    accuracy, error = metrics.two_sample_accuracy(others, reals)
    assert abs(accuracy - 0.5) < 4 * error and 0.02 < error < 0.04
    assert metrics.two_sample_accuracy(255 - others // 2, reals)[0] > 0.9
    assert metrics.two_sample_accuracy(255 - others[:60], reals[:60])[0] > 0.8  # few faces are no reason to learn nothing
    assert metrics.two_sample_accuracy(others, reals) == (accuracy, error)


def test_kinds_of_faces_that_lie_together_are_mixed_before_they_are_halved(faces):
    """Two albums, one dark: halves of the list would be of one album each."""
    albums = np.concatenate([faces[:150] // 3, faces[150:300]])
    others = np.concatenate([faces[300:450] // 3, faces[450:]])
    accuracy, error = metrics.two_sample_accuracy(others, albums)
    assert abs(accuracy - 0.5) < 4 * error


def test_copies_are_found_mirrored_too(faces16):
    training = DataReader(faces16, 1)
    known = training.faces[training.rows]
    fakes = np.stack([known[5], known[90][:, ::-1], 255 - known[7]])
    distances, rows = metrics.nearest(fakes, training, at_once=40)
    assert list(distances[:2]) == [0, 0] and distances[2] > 10 and list(rows[:2]) == [5, 90]


def test_a_training_face_is_not_its_own_neighbour(faces16):
    training, shares = DataReader(faces16, 1), []
    places = np.array([5, 90, len(training) - 1])
    thumbnails = metrics.thumbnails(training.faces[training.rows])
    distances, found = metrics.nearest(training.faces[training.rows[places]], training, itself=places, at_once=len(training) - 1,
                                       progress=shares.append)  # the last is alone in the second part
    for place, distance in zip(places, distances):
        others = np.delete(np.concatenate([thumbnails, thumbnails[:, :, ::-1]]), [place, len(training) + place], axis=0)
        assert distance == pytest.approx(np.sqrt(((others - thumbnails[place]) ** 2).mean(axis=(1, 2, 3)).min()), rel=1e-5)
    assert (found != places).all() and len(shares) == 2 and sum(shares) == pytest.approx(1)


def test_thumbnails_are_means_of_blocks():
    faces = np.random.default_rng(0).integers(0, 256, (2, 97, 97, 3), np.uint8)
    assert metrics.thumbnails(faces)[1, 2, 31] == pytest.approx(faces[1, 6:9, 93:96].mean(axis=(0, 1)) - 127.5, abs=1e-4)


def test_eigenfaces_have_the_mean_and_the_spread_of_the_faces(faces):
    drawn = metrics.pca_faces(faces, components=300).astype(float)
    assert drawn.mean() == pytest.approx(faces.mean(), abs=3)
    assert 0.8 < drawn.std(axis=0).mean() / faces.astype(float).std(axis=0).mean() < 1.1
    assert (metrics.pca_faces(faces, seed=1) != metrics.pca_faces(faces, seed=2)).any()


def test_quick_scores_change_nothing(faces):
    generator = build_generator(Plan(size=32, z_dim=8, channels=4))
    before = {name: tensor.numpy() for name, tensor in generator.state_dict().items()}
    paddle.seed(5)
    first = paddle.rand([1])
    paddle.seed(5)
    scores = metrics.quick_scores(generator, faces[:100])
    assert set(scores) == {"face_fd", "swd", "ms_ssim", "n"} and (paddle.rand([1]) == first).all()
    assert all((tensor.numpy() == before[name]).all() for name, tensor in generator.state_dict().items())
