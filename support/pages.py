"""What the pages of app.py and faces.gradio.py share: bounds on what visitors send, and faces as a browser shows them."""
import base64
import math

import numpy as np
from PIL import Image

from network import draw_faces
from support import figures
from training.randomness import between

MAX_FACES = 36  # in one request
MAX_SEED = 2 ** 31 - 1
MAX_WAITING = 30  # requests at a time; more are refused
MAX_PHOTO = 4 * 2**20  # characters of a photo's data address, which the page makes from one of 1024 px
MAX_INPUT = 6.0  # of z, in standard deviations
FRAMES, SECONDS = 24, 2  # of an interpolation, in each direction
SHOWN = 192  # px, the size at which a face is shown
WIDE = 250  # px, the least width of a control that has a row of its own on a phone
# Up to eight faces in a row, as many as fit; no row is cut off.
CSS = """.gallery .grid-container {grid: auto-flow auto / repeat(auto-fill, minmax(max(70px, 11%), 1fr)) !important}
.gallery .grid-wrap {max-height: none !important; min-height: 0 !important}
.gallery .caption-label {padding: 0 3px; font-size: 10px}
#changed .grid-container {grid: auto-flow auto / 1fr 1fr !important}"""


def bounded(number, minimum, maximum, default):
    """Any value that a visitor sent, as a number in [minimum, maximum]; `default` for what is no number."""
    try:
        number = float(number)
    except (TypeError, ValueError, OverflowError):
        return default
    return min(max(number, minimum), maximum) if math.isfinite(number) else default


def seed(number):
    """Any value that a visitor sent, as a seed."""
    return int(bounded(number, 0, MAX_SEED, 0))


def seeds_from(first, count):
    """Any two values that a visitor sent, as seeds in a row."""
    return range(seed(first), seed(first) + int(bounded(count, 1, MAX_FACES, 16)))


def photo_in(address):
    """The bytes in a data address of a picture that a visitor sent; none where it is no such address, or too large."""
    start, comma, coded = str(address)[:MAX_PHOTO].partition(",")
    try:
        return base64.b64decode(coded, validate=True) if comma and len(str(address)) <= MAX_PHOTO else b""
    except ValueError:  # also for letters that are not ASCII
        return b""


def text_of(inputs):
    """What a face is drawn from, float32 [inputs], as text for an address, in half precision."""
    return base64.urlsafe_b64encode(np.asarray(inputs, "<f2").tobytes()).decode()


def inputs_in(text, count):
    """What `text_of` gave, float32 [count]; None for any other text, and for numbers that no z has."""
    try:
        inputs = np.frombuffer(base64.urlsafe_b64decode(str(text)[:8 * count].encode()), "<f2").astype(np.float32)
    except ValueError:
        return None
    return inputs if inputs.shape == (count,) and (abs(inputs) <= MAX_INPUT).all() else None


def enlarged(faces):
    """uint8 faces [N, S, S, 3], enlarged: a list of PIL images of SHOWN px."""
    return [Image.fromarray(face).resize((SHOWN, SHOWN), Image.Resampling.BICUBIC) for face in faces]


def save_walk(path, generator, one, other):
    """Writes an interpolation from one face to another and back as a .gif; `one` and `other` are rows of `face_inputs`."""
    way = between(generator.plan, one, other, np.linspace(0, 1, FRAMES))
    faces = enlarged(draw_faces(generator, np.concatenate([way, way[-2:0:-1]])))
    figures.save_film(path, [np.asarray(face) for face in faces], 2 * SECONDS)
