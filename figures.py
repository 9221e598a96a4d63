"""Every picture that a person looks at: grids of faces and curves."""
import math
import zlib

import numpy as np
from PIL import Image
from skimage.util import montage

from files import replacing

MOST_POINTS = 2000  # of a curve: more than it has pixels takes long and shows nothing


def evenly(count, most=100):
    """Which of `count` faces to show where there is room for `most`: int64 row numbers, evenly spread."""
    return np.linspace(0, count - 1, min(most, count)).astype(np.int64)


def grid(faces, columns=None):
    """uint8 faces [N, S, S, 3] → one uint8 picture [rows·S, columns·S, 3], row by row, black where none is left.

    Without `columns` the picture is as square as it can be.
    """
    columns = columns or math.ceil(math.sqrt(len(faces)))
    rows = math.ceil(len(faces) / columns)
    return montage(faces, fill=(0, 0, 0), grid_shape=(rows, columns), channel_axis=-1)


def save_picture(path, pixels):
    """Writes a uint8 picture [H, W, 3], atomically; the ending of `path` says in which format."""
    with replacing(path, durable=False) as temporary:  # as .png with a fast compression: faces hardly shrink by more
        Image.fromarray(np.ascontiguousarray(pixels)).save(temporary, compress_level=1, compress_type=zlib.Z_RLE)


def save_film(path, frames, seconds):
    """Writes uint8 pictures [N, H, W, 3] as a film of so many seconds; the ending says of which kind: .gif, .mp4, .webp.

    Raises ImportError for an .mp4 where the package imageio-ffmpeg is missing.
    """
    with replacing(path, durable=False) as temporary:
        if path.suffix.lower() == ".mp4":
            import imageio.v2 as imageio
            import imageio_ffmpeg  # noqa: F401  (which writes it)

            speed = max(1, round(len(frames) / seconds))
            imageio.mimsave(temporary, list(frames), format="FFMPEG", fps=speed, macro_block_size=2)
        else:
            first, *others = [Image.fromarray(frame) for frame in frames]
            first.save(temporary, save_all=True, append_images=others, duration=round(1000 * seconds / len(frames)), loop=0)


def save_figure(path, figure):
    """Writes a matplotlib figure, atomically."""
    with replacing(path, durable=False) as temporary:
        figure.savefig(temporary, dpi=100)


def save_titled_grids(path, titled_faces):
    """Draws several sets of faces (title → uint8 [N, S, S, 3]) side by side, each a grid under its title."""
    grids = {title: grid(faces) for title, faces in titled_faces.items()}
    from matplotlib.figure import Figure  # imported where it is needed: it takes as long as decoding a thousand faces

    figure = Figure(figsize=(8 * len(grids), 8.5), layout="tight")
    for place, (title, pixels) in enumerate(grids.items(), start=1):
        axes = figure.add_subplot(1, len(grids), place)
        axes.imshow(pixels)
        axes.set_title(title, fontsize=20)
        axes.axis("off")
    save_figure(path, figure)


def save_losses(path, losses, steps_per_epoch):
    """Draws `losses` (float32 [steps, 4]: d_loss, g_loss, d_real, d_fake) as two curves over the steps.

    Thin lines are single steps, or in a long run means of a few, thick lines a running mean over one epoch (at most a
    twentieth of the run).
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 8), layout="tight")
    ends = np.linspace(0, len(losses), min(MOST_POINTS, len(losses)) + 1).astype(np.int64)
    steps = (ends[:-1] + ends[1:] + 1) / 2  # counted from 1
    window = max(1, round(min(steps_per_epoch, len(losses) // 20) * len(steps) / len(losses)))
    losses = np.add.reduceat(losses, ends[:-1], axis=0, dtype=np.float64) / np.diff(ends)[:, None]
    curves = (("Loss", ("D", "G"), losses[:, :2]),
              ("D's mean probability of \"real\"", ("D(x), real faces", "D(G(z)), generated faces"), losses[:, 2:]))
    for place, (label, names, columns) in enumerate(curves, start=1):
        axes = figure.add_subplot(2, 1, place)
        for name, values, colour in zip(names, columns.T, ("tab:blue", "tab:orange")):
            axes.plot(steps, values, color=colour, linewidth=0.5, alpha=0.35)
            mean = np.convolve(values, np.full(window, 1 / window), "valid")
            axes.plot(steps[window - 1:], mean, color=colour, label=name)
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        axes.legend()
    save_figure(path, figure)


def save_rows(path, named_faces):
    """Draws several sets of as many faces (name → uint8 [N, S, S, 3]), each a row beside its name."""
    from matplotlib.figure import Figure

    picture = grid(np.concatenate(list(named_faces.values())), columns=len(next(iter(named_faces.values()))))
    height, width, _ = picture.shape
    room = 20 + 9 * max(map(len, named_faces))  # px for the names
    figure = Figure(figsize=((room + width) / 100, height / 100), dpi=100)
    figure.figimage(picture, xo=room)  # a pixel for each of the picture
    for row, name in enumerate(named_faces):
        figure.text((room - 8) / (room + width), 1 - (row + 0.5) / len(named_faces), name, ha="right", va="center")
    save_figure(path, figure)


def save_scores(path, curves, levels):
    """Draws scores over images seen, on a logarithmic scale.

    curves  name → list of (images seen, score)
    levels  name → score, drawn as dashed lines to compare with
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6), layout="tight")
    axes = figure.add_subplot()
    for name, points in curves.items():
        axes.plot(*zip(*points), marker="o", label=name)
    for number, (name, level) in enumerate(levels.items()):
        axes.axhline(level, color="grey", linestyle=("--", ":")[number % 2], label=name)
    axes.set_yscale("log")
    axes.set_xlabel("images seen")
    axes.set_ylabel("SWD, lower is better")
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))  # beside the curves, of which it would hide some
    save_figure(path, figure)


def save_report(path, fakes, reals, closest, copied, scores):
    """Draws the page of evaluate.py: samples, real faces, the generated faces nearest to training faces, scores as bars.

    fakes, reals     uint8 [N, S, S, 3]
    closest, copied  pairs of a generated face and its nearest training face, uint8 [M, S, S, 3] each
    scores           name of the set → name of the score → number
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 17), layout="constrained")
    top, middle, bottom = figure.subfigures(3, 1, height_ratios=(8.5, 3.7, 4.8))
    for axes, title, faces in zip(top.subplots(1, 2), ("Generated faces", "Real faces, held out of training"), (fakes, reals)):
        axes.imshow(grid(faces))
        axes.set_title(title, fontsize=16)
        axes.axis("off")
    axes = middle.subplots()
    axes.imshow(grid(np.concatenate([closest, copied]), columns=len(closest)))
    axes.set_title("Above, the generated faces that are nearest to a training face; below, that training face", fontsize=16)
    axes.axis("off")
    bars = {"swd_mean": "SWD (lower is better)", "ms_ssim": "MS-SSIM (best as the real faces)",
            "two_sample": "two-sample accuracy (0.5 is perfect)", "nearest": "nearest training face (copies: 0)"}
    for axes, (key, title) in zip(bottom.subplots(1, 4), bars.items()):
        values = [some[key] for some in scores.values()]
        colours = ["tab:orange"] + ["tab:blue"] * (len(values) - 1)
        axes.bar_label(axes.barh(list(scores), values, color=colours), fmt="%.3g")
        axes.set_title(title)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.25 * sorted(values)[-2])  # the random generator's SWD would dwarf all others
        if key != "swd_mean":
            axes.set_yticklabels([])
    save_figure(path, figure)
