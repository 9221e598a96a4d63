"""Whether a conditional generator draws the attributes that it is asked for, as a classifier of real faces sees them."""
import numpy as np
import paddle
import paddle.nn as nn
import paddle.nn.functional as F
from tqdm import trange

import zoo
from dataReader import normalise
from network import dcgan_discriminator, draw_faces
from scoring.metrics import logits, padded
from training.randomness import draws, face_inputs

CHANNELS = 16  # width of the classifier
MIN_SHARE = 0.01  # of faces with a label, in the weights of the loss


def train_classifier(training, outputs, seed, updates):
    """A small network with a logit for each label, trained on the labels of real faces (a DataReader); in evaluation mode.

    Rare labels weigh more in the loss, for a network that always answers no would be right about them nearly always.
    """
    paddle.seed(seed)
    size = padded(training.faces[:1]).shape[1]
    layers = dcgan_discriminator(size, zoo.Plan(channels=CHANNELS).width, outputs)
    classifier = nn.Sequential(*layers, ("flat", nn.Flatten()))
    adam = paddle.optimizer.Adam(1e-3, parameters=[weight for weight in classifier.parameters() if not weight.stop_gradient])
    shares = (training.labels_given[training.rows] > 0).mean(axis=0).clip(MIN_SHARE, 1 - MIN_SHARE)
    for update in trange(updates, desc="attributes", leave=False, disable=None):
        rows = draws(seed, "attribute batch", update).permutation(training.rows)[:64]
        has = training.labels_given[rows] > 0
        weights = paddle.to_tensor(np.where(has, 0.5 / shares, 0.5 / (1 - shares)).astype(np.float32))
        answers = classifier(normalise(padded(training.faces[rows])))
        F.binary_cross_entropy_with_logits(answers, paddle.to_tensor(has.astype(np.float32)), weights).backward()
        adam.step()
        adam.clear_grad()
    classifier.eval()
    return classifier


def attribute_accuracy(generator, training, heldout, seed=0, updates=500, faces=500):
    """How often a classifier of real faces is right about attributes: name → four shares of right answers.

    training, heldout  DataReaders with the generator's attributes as labels

    Two shares are of `heldout` faces, with the attribute and without; two of faces drawn with it and without. An attribute that
    all held-out faces have, or none, is left out, for one of its shares would be of no faces.
    """
    plan, rows = generator.plan, heldout.rows[:4 * faces]
    has = heldout.labels_given[rows] > 0
    known = {name: place for place, name in enumerate(plan.labels) if 0 < has[:, place].mean() < 1}
    if not known:
        return {}
    classifier = train_classifier(training, len(plan.labels), seed, updates)

    def answers(some):
        return logits(classifier, padded(some)) > 0

    said, accuracy = answers(heldout.faces[rows]), {}
    for name, place in known.items():
        shares = {"real, with": said[has[:, place], place].mean(), "real, without": 1 - said[~has[:, place], place].mean()}
        for what, label in (("drawn, with", 1), ("drawn, without", -1)):
            drawn = draw_faces(generator, face_inputs(plan, range(seed, seed + faces), {name: label}))
            shares[what] = (answers(drawn)[:, place] == (label > 0)).mean()
        accuracy[name] = {what: float(share) for what, share in shares.items()}
    return accuracy
