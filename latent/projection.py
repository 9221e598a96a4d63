"""The face that a generator can draw nearest to a photo: its z, found by gradient descent (Zhu et al. 2016)."""
from support.cli import UserError

import numpy as np
import paddle

from dataReader import normalise
from intake.detection import align_face, find_faces
from intake.photos import decoded, reason
from network import draw_faces
from scoring.facefeatures import AID, load_features
from support.device import autocast, cpu_without_bfloat16
from training.randomness import LIMITS, face_inputs

POOL, STARTS = 400, 8  # seeds whose faces are compared with the photo; the nearest of them from which the descent starts
STEPS, RATE = 150, 0.1  # of Adam; the rate falls to 0
PIXELS, PRIOR = 4.0, 0.02  # weights of the pixels' loss and of |z|² beside the loss of what the network of faces sees


def cut_face(data, size, name):
    """The only face in the bytes of a photo, as CelebA's are aligned: uint8 [size, size, 3]. Raises UserError, with `name`."""
    try:
        with decoded(data) as (photo, _, _):
            found = find_faces(photo)
            if not len(found):
                raise UserError(f"{name}: no face was found; take a photo that shows one from the front")
            if len(found) > 1:
                raise UserError(f"{name}: {len(found)} faces were found; cut out the one that is meant")
            return align_face(photo, found[0], size)[0]
    except (UserError, MemoryError):
        raise
    except Exception as error:  # a decoder may raise any for a damaged file
        raise UserError(f"{name}: {reason(error)}; take another photo") from None


class Likeness:
    """How unlike pictures are to a face, uint8 [S, S, 3]: in their pixels, and in what a network that knows faces sees.

    The network is not that of the scores, which can so judge the result.
    """

    def __init__(self, face):
        self.maps = load_features(AID).maps
        self.face = normalise(face[None])
        self.wanted = self.maps(self.face)
        self.scales = [float(wanted.square().mean()) for wanted in self.wanted]

    def __call__(self, pictures):
        """float32 pictures [N, 3, S, S] in [-1, 1] → float32 losses [N]."""
        loss = PIXELS * (pictures - self.face).square().mean([1, 2, 3])
        for seen, wanted, scale in zip(self.maps(pictures), self.wanted, self.scales):
            loss += (seen - wanted).square().mean([1, 2, 3]) / scale
        return loss


def project(generator, face, done=lambda: None):
    """What the generator draws the face nearest to `face`, uint8 [S, S, 3], from: float32 [inputs], a row of `face_inputs`.

    It minimises `Likeness` and, for z from N(0, 1), PRIOR times the mean of z², which keeps z where the generator has learned to
    draw. Labels of a conditional generator are found like z, and stay between -1 and 1. The generator's weights are frozen by it.
    `done` is called after each of STEPS steps. A CPU that computes in bfloat16 does, which takes two thirds of the time.
    """
    for weight in generator.parameters():
        weight.stop_gradient = True
    with autocast("bfloat16" if paddle.get_device() == "cpu" and not cpu_without_bfloat16() else "float32"):
        return descend(generator, Likeness(face), done)


def descend(generator, unlike, done):
    """The row of inputs at which a descent from the STARTS best of POOL seeds comes to the lowest loss: see `project`."""
    plan = generator.plan
    low, high = (paddle.to_tensor([limit] * plan.z_dim + [label] * len(plan.labels), "float32")
                 for limit, label in zip(LIMITS[plan.noise], (-1, 1)))
    pool = face_inputs(plan, range(POOL))
    with paddle.no_grad():
        losses = np.concatenate([unlike(normalise(draw_faces(generator, pool[i:i + 100]))).numpy() for i in range(0, POOL, 100)])
    inputs = paddle.create_parameter([min(STARTS, POOL), pool.shape[1]], "float32",
                                     default_initializer=paddle.nn.initializer.Assign(pool[losses.argsort()[:STARTS]]))
    rate = paddle.optimizer.lr.CosineAnnealingDecay(RATE, STEPS)
    adam = paddle.optimizer.Adam(rate, parameters=[inputs])
    for _ in range(STEPS):
        losses = unlike(generator(inputs))
        if plan.noise == "normal":
            losses = losses + PRIOR * inputs[:, :plan.z_dim].square().mean(1)
        losses.sum().backward()
        adam.step()
        adam.clear_grad()
        rate.step()
        with paddle.no_grad():
            inputs.set_value(paddle.minimum(paddle.maximum(inputs, low), high))
        done()
    return inputs[int(losses.argmin())].numpy()
