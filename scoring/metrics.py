"""Scores of generated faces. All faces are uint8 [N, S, S, 3], and nothing needs to be downloaded.

Each score is to be compared with those of `baselines`: other real faces, and faces that are wrong in a known way.
"""
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import paddle
from scipy.linalg import eigh
from scipy.ndimage import correlate1d, gaussian_filter

import zoo
from dataReader import normalise
from network import SIZES, bce_d_loss, draw_faces
from scoring.facefeatures import face_features
from scoring.fid import frechet_distance
from support.device import usable_cpus
from training.randomness import draws, face_inputs

MIN_LEVEL = 16  # px, of the Laplacian pyramid
PATCH = 7  # px
PATCHES = 128  # for each face and level
DIRECTIONS = 256
QUICK_FACES = 1000  # of 64 px, for the scores during training; fewer of a larger size, so that the time stays the same
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, section 3.2


def sliced_wasserstein(fakes, reals, seed=0, directions=DIRECTIONS):
    """The distances of patches of two equal numbers of faces, × 1000: {size in px: distance}, fine to coarse; 0 is best.

    Sliced Wasserstein distance over the levels of a Laplacian pyramid (Karras et al. 2018, section 5), as in their program: 128
    patches of 7×7 px for each face and level, normalised by channel. Other than there: 256 directions by default in place of 512,
    and patches from the same places in both sets, so that a set has the distance 0 to itself.
    """
    distances = {}
    for fake_level, real_level in zip(laplacian_pyramid(fakes), laplacian_pyramid(reals)):
        size = fake_level.shape[2]
        one, other = (patches(level, seed) for level in (fake_level, real_level))
        slices = draws(seed, "slices", size).standard_normal((directions, one.shape[1]), dtype=np.float32)
        slices /= np.linalg.norm(slices, axis=1, keepdims=True)

        def gap(some):
            return np.abs(np.sort(some @ one.T) - np.sort(some @ other.T)).mean()

        with ThreadPoolExecutor(usable_cpus()) as threads:  # 16 directions at a time: all at once would take gigabytes
            distances[size] = float(1000 * np.mean(list(threads.map(gap, np.split(slices, directions // 16)))))
    return distances


def quick_scores(generator, reals):
    """Scores for use during training, of a generator against held-out faces: {"face_fd", "swd", "ms_ssim", "n": how many}."""
    return quick_scores_of(draw_faces(generator, face_inputs(generator.plan, range(len(reals)))), reals)


def quick_scores_of(fakes, reals):
    """The same scores of faces, as many as `reals`; those of other real faces are the baseline."""
    distances = sliced_wasserstein(fakes, reals, directions=64)
    return {"n": len(reals), "face_fd": frechet_distance(face_features(fakes), face_features(reals)),
            "swd": float(np.mean(list(distances.values()))), "ms_ssim": ms_ssim(fakes)}


def laplacian_pyramid(faces):
    """Yields float32 [N, 3, S, S]: the detail that each halving of the size down to 16 px removes, and then what remains."""
    level = faces.transpose(0, 3, 1, 2).astype(np.float32)
    while level.shape[2] > MIN_LEVEL:
        half = blur(level)[:, :, ::2, ::2].copy()  # a view would keep the whole array in memory
        doubled = np.zeros_like(level)
        doubled[:, :, ::2, ::2] = half
        yield level - 4 * blur(doubled)
        level = half
    yield level


def blur(pictures):
    """Convolves the last two axes with Burt and Adelson's 5-tap kernel."""
    kernel = np.array([1, 4, 6, 4, 1], np.float32) / 16
    return correlate1d(correlate1d(pictures, kernel, axis=2, mode="mirror"), kernel, axis=3, mode="mirror")


def patches(level, seed):
    """Patches of pictures [N, 3, S, S] from random places, flattened: float32 [N · 128, 147].

    Each channel is scaled to mean 0 and standard deviation 1 over all patches.
    """
    count, _, size, _ = level.shape
    top, left = draws(seed, "patches", size).integers(0, size - PATCH + 1, (2, count * PATCHES, 1, 1))
    row, column = np.mgrid[:PATCH, :PATCH]
    face = np.repeat(np.arange(count), PATCHES)[:, None, None]
    cut = np.stack([level[:, channel][face, top + row, left + column] for channel in range(3)], axis=1)
    cut -= cut.mean(axis=(0, 2, 3), keepdims=True)
    cut /= cut.std(axis=(0, 2, 3), keepdims=True) + 1e-8
    return cut.reshape(len(cut), -1)


def ms_ssim(faces, seed=0):
    """Mean similarity of random pairs of faces, 0 to 1; after mode collapse it is higher than that of real faces.

    Multi-scale structural similarity (Wang et al. 2003), used for this by Odena et al. 2017, section 4.2.
    """
    order = draws(seed, "pairs").permutation(len(faces))
    half = len(faces) // 2
    one, other = (faces[rows].transpose(0, 3, 1, 2).astype(np.float32) for rows in (order[:half], order[half:2 * half]))
    result = 1.0
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        luminance, contrast = ssim_terms(one, other)
        last = scale == len(MS_SSIM_WEIGHTS) - 1
        similarity = (luminance * contrast if last else contrast).mean(axis=(1, 2, 3))
        result = result * similarity.clip(0) ** weight
        if not last:
            side = one.shape[2] // 2  # of an odd size the last row and column are dropped
            one, other = (some[:, :, :2 * side, :2 * side].reshape(half, 3, side, 2, side, 2).mean(axis=(3, 5))
                          for some in (one, other))
    return float(result.mean())


def ssim_terms(one, other):
    """Luminance, and contrast with structure, of two sets of pictures [N, 3, S, S] in 0–255, per window (Wang et al. 2004)."""
    window = min(11, one.shape[2])
    distance = np.arange(window) - (window - 1) / 2
    kernel = np.exp(-0.5 * (distance / (1.5 * window / 11)) ** 2)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    start, count = window // 2, one.shape[2] - window + 1  # whole windows only

    def mean(pictures):
        smooth = correlate1d(correlate1d(pictures, kernel, axis=2), kernel, axis=3)
        return smooth[:, :, start:start + count, start:start + count]

    mean1, mean2 = mean(one), mean(other)
    variances = mean(one ** 2) - mean1 ** 2 + mean(other ** 2) - mean2 ** 2
    covariance = mean(one * other) - mean1 * mean2
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return (2 * mean1 * mean2 + c1) / (mean1 ** 2 + mean2 ** 2 + c1), (2 * covariance + c2) / (variances + c2)


def two_sample_accuracy(fakes, reals, seed=0, updates=100, channels=8):
    """How often a small new discriminator, trained on one half of two sets, is right on the other: (share, standard error).

    0.5 is perfect, 1.0 the worst. A classifier two-sample test (Lopez-Paz & Oquab 2017, section 3).
    """
    half = len(fakes) // 2
    fakes, reals = padded(fakes), padded(reals)
    # Neighbouring files are similar: halves of the list would be two kinds of faces.
    fakes, reals = (faces[draws(seed, "two-sample halves").permutation(len(faces))] for faces in (fakes, reals))
    paddle.seed(seed)
    classifier = zoo.build_discriminator(zoo.Plan(size=fakes.shape[1], channels=channels), "bce")
    adam = paddle.optimizer.Adam(1e-3, parameters=[weight for weight in classifier.parameters() if not weight.stop_gradient])
    for update in range(updates):
        rows = draws(seed, "two-sample batch", update).permutation(half)[:50]
        answers = classifier(paddle.concat([normalise(reals[rows]), normalise(fakes[rows])]))
        bce_d_loss(answers[:len(rows)], answers[len(rows):]).backward()
        adam.step()
        adam.clear_grad()
    classifier.eval()
    right = np.concatenate([logits(classifier, reals[half:]) > 0, logits(classifier, fakes[half:]) < 0])
    return float(right.mean()), float(np.sqrt(right.mean() * (1 - right.mean()) / len(right)))


def padded(faces):
    """Faces with black borders below and to the right, up to the next size that a DCGAN discriminator is made for."""
    missing = min(size for size in SIZES if size >= faces.shape[1]) - faces.shape[1]
    return np.pad(faces, [(0, 0), (0, missing), (0, missing), (0, 0)])


@paddle.no_grad()
def logits(network, faces, batch_size=100):
    """The logits that a network, such as a discriminator, has for faces: float32 [N, …]."""
    return np.concatenate([network(normalise(faces[start:start + batch_size])).numpy()
                           for start in range(0, len(faces), batch_size)])


def nearest(faces, training, itself=None, at_once=5000, progress=lambda share: None):
    """For each face the nearest one of a DataReader, mirrored or not: (distances, places among its faces), float32, int64 [N].

    itself    for each face the place of the same face among those of the DataReader, which is skipped; -1: none is skipped
    progress  called with each share of the work that is done; the shares add up to 1

    The distance is the root mean square of the differences of pixel values (0–255), at 32 px.
    """
    ours = thumbnails(faces)
    one = ours.reshape(len(ours), -1)
    itself = np.full(len(faces), -1) if itself is None else itself
    squares, places = np.full(len(faces), np.inf, np.float32), np.zeros(len(faces), np.int64)
    for start in range(0, len(training), at_once):
        some = thumbnails(training.faces[training.rows[start:start + at_once]])
        same = np.flatnonzero((itself >= start) & (itself < start + len(some)))
        for others in (some, some[:, :, ::-1]):
            other = others.reshape(len(others), -1)
            gaps = (other ** 2).sum(axis=1) - 2 * one @ other.T
            gaps[same, itself[same] - start] = np.inf
            closest = gaps.argmin(axis=1)
            found = ((one - other[closest]) ** 2).mean(axis=1)
            found[start + closest == itself] = np.inf  # it was the only face in this part
            places = np.where(found < squares, start + closest, places)
            squares = np.minimum(found, squares)
        progress(len(some) / len(training))
    return np.sqrt(squares), places


def thumbnails(faces):
    """Faces at 32 px, or up to twice that: float32 [N, S, S, 3] in -127.5 to 127.5, which keeps products exact."""
    factor = max(1, faces.shape[1] // 32)
    side = faces.shape[1] // factor * factor  # px; the rest does not fill a block
    blocks = (faces[:, row:side:factor, column:side:factor] for row in range(factor) for column in range(factor))
    return sum(pixels.astype(np.float32) for pixels in blocks) / factor ** 2 - 127.5


def baselines(training, plan, seed=0):
    """Sets of faces whose scores those of generated faces are compared with: name → as many faces as `training`, best first.

    training  real faces, others than those that the scores are computed against
    plan      zoo.Plan of the random generator, which is left out where no network has this size
    """
    deviation = training.shape[1] / 32  # px, of the blur
    blurred = gaussian_filter(training.astype(np.float32), (0, deviation, deviation, 0))
    faces = {"real faces": training,
             "PCA faces": pca_faces(training, seed),
             "blurred faces": blurred.round().astype(np.uint8)}
    if plan.arch != "dcgan" or plan.size in SIZES:
        paddle.seed(seed)
        faces["random generator"] = draw_faces(zoo.build_generator(plan), face_inputs(plan, range(len(training))))
    return {**faces, "noise": draws(seed, "noise").integers(0, 256, training.shape, dtype=np.uint8)}


def pca_faces(faces, seed=0, components=100):
    """As many faces as `faces`, drawn from a normal distribution along their principal components (eigenfaces)."""
    flat = faces.reshape(len(faces), -1).astype(np.float32)
    mean = flat.mean(axis=0)
    components = min(components, len(faces) - 1)
    # The eigenvectors of the small matrix X·Xᵀ give those of Xᵀ·X, scaled (Turk & Pentland 1991).
    _, vectors = eigh((flat - mean) @ (flat - mean).T, subset_by_index=[len(faces) - components, len(faces) - 1])
    deviations = vectors.T @ (flat - mean) / np.sqrt(len(faces) - 1)  # each component times its standard deviation
    drawn = mean + draws(seed, "PCA").standard_normal((len(faces), components), dtype=np.float32) @ deviations
    return drawn.round().clip(0, 255).astype(np.uint8).reshape(faces.shape)
