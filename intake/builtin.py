"""The built-in faces, for a machine without photos: the pretrained generator draws them."""
import io

from PIL import Image

from intake.sources import Picture
from network import draw_faces
from support.device import choose_device
from training.checkpoint import load_generator
from training.randomness import face_inputs
from training.weights import PRETRAINED

COUNT = 2000  # seeds, from 0 on


def builtin_pictures(most=None):
    """The built-in faces, `most` at most, as pictures that pretreat.py reads; drawing all of them takes ten seconds."""
    choose_device("cpu")
    generator, _ = load_generator(PRETRAINED)
    faces = draw_faces(generator, face_inputs(generator.plan, range(COUNT)[:most]))
    return [Picture(f"seed{seed:04d}.png", lambda face=face: as_png(face)) for seed, face in enumerate(faces)]


def as_png(face):
    """A face uint8 [S, S, 3] as the bytes of a .png file."""
    file = io.BytesIO()
    Image.fromarray(face).save(file, "png")
    return file.getvalue()
