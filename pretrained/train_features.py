"""Trains the network of scoring/facefeatures.py on CelebA's attributes, and packs it.

    python pretreat.py --attributes
    python -m pretrained.train_features                                                        # for scores
    python -m pretrained.train_features --seed 1 --out pretrained/vision-aid.safetensors       # to help D

It learns to tell the attributes, and whether and how much a face was damaged (see `damage`): attributes alone can be read off
faces that no one would take for real.
"""
from support.cli import Parser, UserError, number, run_command

import json

import numpy as np
import paddle
import paddle.nn.functional as F
from scipy.ndimage import gaussian_filter, map_coordinates, zoom
from tqdm import trange

from dataReader import DataReader, normalise
from scoring.facefeatures import DAMAGES, SIDE, WEIGHTS, FaceFeatures
from scoring.metrics import logits
from support.device import autocast, choose_device, choose_precision
from training.checkpoint import write_tensors
from training.randomness import draws

BATCH, RATE, DECAY = 64, 2e-3, 0.02  # AdamW's
DAMAGED_SHARE = 0.6  # of the faces in a batch
FARTHEST = 4  # px, of a face's place from its usual one


def damage(kind, face, other, amount, random):
    """A face uint8 [64, 64, 3] made wrong in one of the ways in which generated faces are, by an `amount` from 0 to 1.

    warp   features are out of place: pixels move by a smooth random field, up to some 6 px
    blur   a Gaussian of up to 2 px
    grain  a random pattern of one or two pixels a cell
    swap   a random region, of up to half of the face, is from the `other` face
    """
    if kind == "blur":
        return gaussian_filter(face.astype(np.float32), (2 * amount, 2 * amount, 0))
    if kind == "grain":
        cell = random.integers(1, 3)
        pattern = random.standard_normal((SIDE // cell, SIDE // cell, random.choice([1, 3])))
        return face + 20 * amount * pattern.repeat(cell, axis=0).repeat(cell, axis=1)
    place = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    if kind == "warp":
        cells = random.integers(4, 9)
        for axis in place:
            axis += 4 * amount * zoom(random.standard_normal((cells, cells)), SIDE / cells, order=1)
        return np.stack([map_coordinates(face[..., color], place, order=1, mode="nearest") for color in range(3)], axis=2)
    centre, far = random.uniform(SIDE / 4, 3 * SIDE / 4, (2, 1, 1)), SIDE * (0.1 + 0.3 * amount)
    distance = np.hypot(*((place - centre) * random.uniform(0.7, 1.4, (2, 1, 1))))
    share = np.clip((far - distance) / 4 + 0.5, 0, 1)[..., None]  # with a soft edge
    return face + share * (other.astype(np.float32) - face)


def make_batch(reader, rows, random):
    """Faces [B, 64, 64, 3] uint8, and the amount of each of DAMAGES in them, float32 [B, 4]; a face has one at most."""
    originals = reader.faces[rows]
    faces, amounts = originals.copy(), np.zeros((len(rows), len(DAMAGES)), np.float32)
    for i, face in enumerate(originals):
        if random.random() < DAMAGED_SHARE:
            which = random.integers(len(DAMAGES))
            amounts[i, which] = random.random()
            changed = damage(DAMAGES[which], face, originals[i - 1], amounts[i, which], random)
            faces[i] = np.clip(np.round(changed), 0, 255)
        if random.random() < 0.5:
            faces[i] = faces[i, :, ::-1]
        faces[i] = move(faces[i], random.integers(-FARTHEST, FARTHEST + 1, 2))
    return faces, amounts


def move(face, way):
    """The face moved by so many px down and to the right; the border is repeated."""
    padded = np.pad(face, [(FARTHEST, FARTHEST), (FARTHEST, FARTHEST), (0, 0)], mode="edge")
    top, left = FARTHEST - way
    return padded[top:top + SIDE, left:left + SIDE]


def train(network, reader, epochs, seed, precision):
    """Trains with AdamW, its rate on a half cosine to 0 (Loshchilov & Hutter 2017, 2019)."""
    per_epoch = len(reader) // BATCH
    rate = paddle.optimizer.lr.CosineAnnealingDecay(RATE, epochs * per_epoch)
    adam = paddle.optimizer.AdamW(rate, parameters=network.parameters(), weight_decay=DECAY)
    for update in (bar := trange(epochs * per_epoch, disable=None)):
        epoch, batch = divmod(update, per_epoch)
        rows = draws(seed, "features order", epoch).permutation(reader.rows)[batch * BATCH:(batch + 1) * BATCH]
        faces, amounts = make_batch(reader, rows, draws(seed, "features batch", update))
        targets = np.concatenate([reader.labels[rows] > 0, amounts], axis=1).astype(np.float32)
        with autocast(precision):
            answers = network(normalise(faces))
        loss = F.binary_cross_entropy_with_logits(answers.astype("float32"), paddle.to_tensor(targets))
        loss.backward()
        adam.step()
        adam.clear_grad()
        rate.step()
        if (update + 1) % 100 == 0:
            bar.write(f"update {update + 1} of {epochs * per_epoch}, loss {float(loss):.4f}")


@paddle.no_grad()
def measure(network, reader):
    """Sets mean and deviation of the features over a DataReader's faces."""
    found = np.concatenate([network.seen(normalise(reader.faces[rows])).numpy()
                            for rows in np.split(reader.rows, range(100, len(reader), 100))])
    network.mean.set_value(found.mean(axis=0))
    network.deviation.set_value(found.std(axis=0) + 1e-3)


def judge(network, heldout, seed):
    """How the network does on held-out faces, by name: accuracies of attributes, and for each damage the correlation of what it
    says with what was done."""
    said = logits(network, heldout.faces[heldout.rows])[:, :len(network.attributes)] > 0
    right = dict(zip(network.attributes, (said == (heldout.labels[heldout.rows] > 0)).mean(axis=0).round(4).tolist()))
    faces, amounts = make_batch(heldout, heldout.rows, draws(seed, "features test"))
    answers = logits(network, faces)[:, len(network.attributes):]
    return right, {name: round(float(np.corrcoef(1 / (1 + np.exp(-answers[:, i])), amounts[:, i])[0, 1]), 3)
                   for i, name in enumerate(DAMAGES)}


def build_parser():
    """The parser of the command's options."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--data", default="imgs", metavar="DIR", help="faces packed with pretreat.py --attributes")
    add("--epochs", type=number(int, 1), default=12, help="passes over the faces")
    add("--seed", type=number(int, 0), default=0, help="another seed, other features")
    add("--out", default=WEIGHTS, metavar="FILE", help="the weights, float16")
    return parser


def main():
    """The command: trains, prints how well the network does on held-out faces, and writes it."""
    options = build_parser().parse_args()
    training, heldout = (DataReader(options.data, 1, split=split) for split in ("train", "heldout"))
    names = training.manifest.get("attributes", [])
    if training.size != SIDE or not names:
        raise UserError(f"--data {options.data}: faces of {SIDE} px with attributes are needed (pretreat.py --attributes)")
    precision = choose_precision(None, choose_device("auto", aloud=True))
    paddle.seed(options.seed)
    network = FaceFeatures(names)
    train(network, training, options.epochs, options.seed, precision)
    network.eval()
    measure(network, training)
    right, correlations = judge(network, heldout, options.seed)
    print(f"held-out faces: right about {np.mean(list(right.values())):.1%} of the attributes; damage: {correlations}")
    print(right)
    write_tensors(options.out, {name: tensor.numpy().astype(np.float16) for name, tensor in network.state_dict().items()},
                  {"attributes": json.dumps(names), "epochs": str(options.epochs), "seed": str(options.seed),
                   "right": json.dumps(right), "damage": json.dumps(correlations)})


if __name__ == "__main__":
    run_command(main)
