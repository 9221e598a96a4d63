"""Every picture that a person looks at: grids of faces and curves."""
from support.cli import printable

import math
import textwrap
import warnings
import zlib

import numpy as np
from PIL import Image
from skimage.util import montage

from support.files import replacing

MAX_POINTS = 2000  # of a curve, which is drawn about 900 px wide: more would take longer and show no more


def evenly(count, most=100):
    """Which of `count` faces to show, `most` at most: int64 row numbers, evenly spread."""
    return np.linspace(0, count - 1, min(most, count)).astype(np.int64)


def grid(faces, columns=None):
    """uint8 faces [N, S, S, 3] → one uint8 picture [rows·S, columns·S, 3], row by row; the places that are left are black.

    Without `columns` the picture is as square as it can be.
    """
    columns = columns or math.ceil(math.sqrt(len(faces)))
    rows = math.ceil(len(faces) / columns)
    return montage(faces, fill=(0, 0, 0), grid_shape=(rows, columns), channel_axis=-1)


def save_picture(path, pixels):
    """Writes a uint8 picture [H, W, 3], atomically; the ending of `path` says in which format."""
    with replacing(path, durable=False) as temporary:  # a .png with fast compression: another makes faces hardly smaller
        Image.fromarray(np.ascontiguousarray(pixels)).save(temporary, compress_level=1, compress_type=zlib.Z_RLE)


def save_film(path, frames, seconds):
    """Writes uint8 pictures [N, H, W, 3] as a film of so many seconds; the ending says in which format: .gif, .mp4, .webp.

    Raises ImportError for an .mp4 where imageio or imageio-ffmpeg is missing, OSError where the film could not be written whole.
    """
    with replacing(path, durable=False) as temporary:
        if path.suffix.lower() == ".mp4":
            save_mp4(temporary, frames, speed=max(1, round(len(frames) / seconds)))
        else:
            first, *others = [Image.fromarray(frame) for frame in frames]
            first.save(temporary, save_all=True, append_images=others, duration=round(1000 * seconds / len(frames)), loop=0)


def save_mp4(path, frames, speed):
    """Writes a film of `speed` pictures a second.

    ffmpeg, another process, reports no error where it fails, so the pictures in the file are counted.
    """
    import imageio.v2 as imageio
    import imageio_ffmpeg

    try:
        imageio.mimsave(path, list(frames), format="FFMPEG", fps=speed, macro_block_size=2)
        written = imageio_ffmpeg.count_frames_and_secs(path)[0]
    except (OSError, RuntimeError):
        written = 0
    if written != len(frames):
        raise OSError(f"ffmpeg wrote {written} of the film's {len(frames)} pictures (is the disk full?); "
                      "earlier files are unharmed")


def save_figure(path, figure):
    """Writes a matplotlib figure, atomically."""
    with replacing(path, durable=False) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # such as Chinese, which few fonts have
        figure.savefig(temporary, dpi=100)


def plain(text, most=60):
    """A name or a path as text for a figure; to be used with parse_math=False, for a $ would start a formula.

    A text longer than `most` characters loses its middle.
    """
    text = printable(text)
    return text if len(text) <= most else f"{text[:most // 2 - 1]}…{text[-most // 2:]}"


def save_titled_grids(path, titled_faces):
    """Draws several sets of faces (title → uint8 [N, S, S, 3]) side by side, each a grid under its title."""
    grids = {title: grid(faces) for title, faces in titled_faces.items()}
    from matplotlib.figure import Figure  # imported where it is needed, for that takes long

    figure = Figure(figsize=(8 * len(grids), 8.5), layout="tight")
    for place, (title, pixels) in enumerate(grids.items(), start=1):
        axes = figure.add_subplot(1, len(grids), place)
        axes.imshow(pixels)
        axes.set_title(plain(title), fontsize=20, parse_math=False)
        axes.axis("off")
    save_figure(path, figure)


def save_losses(path, losses, steps_per_epoch):
    """Draws `losses` (float32 [steps, 4]: d_loss, g_loss, d_real, d_fake) as two curves over the steps.

    Thin lines are single steps, in a run of more than MAX_POINTS steps means of a few. Thick lines are running means over one
    epoch, or over a twentieth of the run where that is less.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 8), layout="tight")
    ends = np.linspace(0, len(losses), min(MAX_POINTS, len(losses)) + 1).astype(np.int64)
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
    """Draws sets of faces (name → uint8 [N, S, S, 3], all with the same N), each as a row beside its name."""
    from matplotlib.figure import Figure

    picture = grid(np.concatenate(list(named_faces.values())), columns=len(next(iter(named_faces.values()))))
    height, width, _ = picture.shape
    names = list(map(plain, named_faces))
    room = 20 + 9 * max(map(len, names))  # px for the names
    figure = Figure(figsize=((room + width) / 100, height / 100), dpi=100)
    figure.figimage(picture, xo=room)  # unscaled, pixel for pixel
    for row, name in enumerate(names):
        figure.text((room - 8) / (room + width), 1 - (row + 0.5) / len(names), name, ha="right", va="center", parse_math=False)
    save_figure(path, figure)


def save_sum(path, columns, result):
    """Draws a sum of faces.

    columns  of each term: title → uint8 [N, S, S, 3], the last of which is the face of the others' mean
    result   uint8 [9, S, S, 3], drawn as a square
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.2 * len(columns) + 6, 6), layout="constrained")
    axes = figure.subplots(1, len(columns) + 1, width_ratios=[*[1] * len(columns), 3])
    for part, (title, faces) in zip(axes, columns.items()):
        part.imshow(grid(faces, columns=1))
        part.axhline((len(faces) - 1) * faces.shape[1] - 0.5, color="white", linewidth=4)
        part.set_title("\n".join(textwrap.wrap(plain(title).replace(",", ", "), 16)), fontsize=12, parse_math=False)
    axes[-1].imshow(grid(result))
    axes[-1].set_title("=", fontsize=20)
    for part in axes:
        part.axis("off")
    save_figure(path, figure)


def save_scores(path, curves, levels):
    """Draws scores over images seen, on a logarithmic scale.

    curves  name → list of (images seen, score)
    levels  name → score, drawn as dashed and dotted lines to compare with
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
    axes.set_ylabel("face FD, lower is better")
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))  # beside the axes, for in them it would hide curves
    save_figure(path, figure)


def save_report(path, title, fakes, reals, closest, copied, scores):
    """Draws the page of evaluate.py: samples, real faces, the generated faces nearest to training faces, scores as bars.

    title            lines of text: which faces these are
    fakes, reals     uint8 [N, S, S, 3]
    closest, copied  uint8 [M, S, S, 3] each: generated faces, and the training face nearest to each
    scores           name of the set → name of the score → number; "generated" and "real faces" come first
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 18), layout="constrained")
    lines = [line for part in title for line in textwrap.wrap(plain(part, 450), 150)]
    figure.suptitle("\n".join(lines), fontsize=12, parse_math=False)
    top, middle, bottom = figure.subfigures(3, 1, height_ratios=(8.5, 3.7, 4.3))
    for axes, heading, faces in zip(top.subplots(1, 2), ("Generated faces", "Real faces, held out of training"), (fakes, reals)):
        axes.imshow(grid(faces))
        axes.set_title(heading, fontsize=16)
        axes.axis("off")
    axes = middle.subplots()
    axes.imshow(grid(np.concatenate([closest, copied]), columns=len(closest)))
    axes.set_title("Above, the generated faces that are nearest to a training face; below, that training face", fontsize=16)
    axes.axis("off")
    bars = {"face_fd": "face FD\nlower is better", "recall": "recall\nbest as that of real faces",
            "swd_mean": "SWD\nlower is better", "ms_ssim": "MS-SSIM\nbest as that of real faces",
            "two_sample": "two-sample accuracy\n0.5 is perfect", "nearest": "nearest training face\ncopies: 0",
            "fid": "FID\nlower is better", "kid": "KID\nlower is better"}
    bars = {key: heading for key, heading in bars.items() if key in scores["generated"]}
    for axes, (key, heading) in zip(bottom.subplots(1, len(bars), sharey=True), bars.items()):
        axes.set_title(heading)
        draw_bars(axes, {name: some[key] for name, some in scores.items()})
    save_figure(path, figure)


def draw_bars(axes, values):
    """Draws numbers by name as bars, one below the other.

    The axis ends at four times the larger of the first two numbers, or before; bars of larger numbers are cut off there, with an
    arrow.
    """
    numbers = list(values.values())
    limit = min(max(numbers), 4 * max(numbers[:2])) or 1
    for row, number in enumerate(numbers):
        axes.barh(row, number, color=("tab:orange", "tab:green")[row] if row < 2 else "tab:blue")
        if number > 0.7 * limit:  # there is no room beside the bar: the number is written in it
            axes.text(0.98 * limit if number > limit else number - 0.02 * limit, row, f"{number:.3g}" + " →" * (number > limit),
                      color="white", ha="right", va="center")
        else:
            axes.text(max(0, number) + 0.03 * limit, row, f"{number:.3g}", va="center")
    axes.set_yticks(range(len(values)), values)
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_xlim(min(0, *numbers), limit)
