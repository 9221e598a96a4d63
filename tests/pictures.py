"""Pictures and archives that several test files make."""
import io
import zipfile

import numpy as np
from PIL import Image
from skimage.data import lfw_subset

from intake.sources import Picture


def encoded(image, kind="png", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(number=0, kind="png", **options):
    return encoded(Image.fromarray(np.random.default_rng(number).integers(0, 256, (20, 20, 3), np.uint8)), kind, **options)


def zipped(path, *members, method=zipfile.ZIP_STORED):
    """A .zip file of (name or ZipInfo, bytes)."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def colours(width, height):
    """A picture whose red grows to the right and whose green grows downwards."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([across, down, np.full_like(down, 60)], -1).astype(np.uint8))


def small_faces():
    """The hundred faces that are part of scikit-image (25×25 px, grey), as pictures for pretreat.py."""
    faces = [encoded(Image.fromarray(np.round(face * 255).astype(np.uint8))) for face in lfw_subset()[:100]]
    return [Picture(f"lfw_subset/{i:03d}.png", lambda face=face: face) for i, face in enumerate(faces)]
