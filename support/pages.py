"""What the pages of app.py and faces.gradio.py share: bounds on whatever a visitor sends, and faces as a browser shows them."""
import math

import numpy as np
from PIL import Image

from network import draw_faces
from support import figures
from training.randomness import between

MAX_FACES = 36  # at a time
MAX_SEED = 2 ** 31 - 1
MAX_WAITING = 30  # requests at a time; more are refused
FRAMES, SECONDS = 24, 2  # of an interpolation, each way
SHOWN = 192  # px
WIDE = 250  # px, of what needs a row of its own on a phone
# As many faces in a row as there is room for, up to eight, and no row that is cut off.
CSS = """.gallery .grid-container {grid: auto-flow auto / repeat(auto-fill, minmax(max(70px, 11%), 1fr)) !important}
.gallery .grid-wrap {max-height: none !important; min-height: 0 !important}
.gallery .caption-label {padding: 0 3px; font-size: 10px}"""


def bounded(number, least, most, default):
    """Whatever came, as a number that is not too small and not too large."""
    try:
        number = float(number)
    except (TypeError, ValueError, OverflowError):
        return default
    return min(max(number, least), most) if math.isfinite(number) else default


def seed(number):
    """Whatever came, as a seed."""
    return int(bounded(number, 0, MAX_SEED, 0))


def seeds_from(first, count):
    """Whatever came, as seeds in a row."""
    return range(seed(first), seed(first) + int(bounded(count, 1, MAX_FACES, 16)))


def enlarged(faces):
    """Faces as pictures that can be seen: a list of PIL images of SHOWN px."""
    return [Image.fromarray(face).resize((SHOWN, SHOWN), Image.Resampling.BICUBIC) for face in faces]


def save_walk(path, generator, one, other):
    """Writes a film, a .gif, from one face to another and back; each is a row of `face_inputs`."""
    way = between(generator.plan, one, other, np.linspace(0, 1, FRAMES))
    faces = enlarged(draw_faces(generator, np.concatenate([way, way[-2:0:-1]])))
    figures.save_film(path, [np.asarray(face) for face in faces], 2 * SECONDS)
