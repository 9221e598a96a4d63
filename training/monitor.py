"""What a run reports: the status line, log.jsonl, losses.npy, loss.png, VisualDL, and warnings about a GAN going wrong."""
from support.cli import UserError

import json
import math
import re
import time
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import paddle
from tqdm import tqdm

from scoring import metrics
from support import figures
from support.device import memory_mb
from support.files import replacing
from training import ranks

COLUMNS = ("d_loss", "g_loss", "d_real", "d_fake")  # of losses.npy
LOG_EVERY = 100  # steps between two status lines
MIN_HELD_OUT = 100  # scores against fewer faces are too noisy to say which generator is best
ALIKE_THRESHOLD = 0.2  # MS-SSIM above which drawn faces are too much alike, on the way from that of real faces (0) to 1
PATIENCE = 5  # for how many status lines something must look wrong before a warning


class RealFaces:
    """The real faces that those drawn in training are compared with.

    shown     up to a hundred of a DataReader's training faces, evenly spread, uint8 [N, S, S, 3]
    held_out  faces kept out of training, for the scores; of larger ones fewer, so that it takes as long
    enough    whether these are enough for scores
    """

    def __init__(self, reader):
        self.shown = reader.faces[reader.rows[figures.evenly(len(reader))]]
        self.held_out = reader.held_out_faces(max(MIN_HELD_OUT, round(metrics.QUICK_FACES * min(1, (64 / reader.size) ** 2))))
        self.enough = len(self.held_out) >= MIN_HELD_OUT
        self.reader = reader

    @cached_property
    def similarity(self):
        """MS-SSIM of pairs of those shown; of a single face with itself 1."""
        return metrics.ms_ssim(self.shown) if len(self.shown) > 1 else 1.0

    @cached_property
    def scores(self):
        """The scores of training faces, as many as are held out: as good as drawn ones can get."""
        some = self.reader.faces[self.reader.rows[figures.evenly(len(self.reader), len(self.held_out))]]
        return metrics.quick_scores_of(some, self.held_out[:len(some)])


class Monitor:
    """Collects the numbers of each step on the device and fetches them only when a line is due.

    folder           the run's folder; log lines and samples of steps after `start_step` are deleted: they were never saved
    batch_size       faces a step
    steps_per_epoch  steps an epoch
    total_steps      where the run ends, for the time that is left
    seconds          training time before `start_step`
    visualdl         also write VisualDL's log, into folder/visualdl
    certain          D's mean probabilities of "real" on reals and on fakes beyond which it has won: see network.certainty
    suspicions       the attribute `suspicions` as it was when the run was saved
    """

    def __init__(self, folder, start_step, total_steps, steps_per_epoch, batch_size, seconds=0.0, visualdl=False,
                 certain=(1.0, 0.0), suspicions=None):
        self.certain = certain
        self.folder, self.batch_size, self.steps_per_epoch = Path(folder), batch_size, steps_per_epoch
        self.step, self.total_steps = start_step, total_steps
        self.started, self.seconds_before = time.perf_counter(), seconds
        self.logged_step, self.logged_seconds = start_step, seconds
        self.pending = []  # tensors [4] still on the device
        self.losses = saved_losses(self.folder / "losses.npy", start_step)
        self._delete_lines_after(start_step)
        self._delete_samples_after(start_step)
        self.suspicions = {"alike": 0, **(suspicions or {})}  # status lines at which faces looked alike, less the others since
        self.board = open_board(self.folder / "visualdl") if visualdl else None
        self.bar = tqdm(total=total_steps, initial=start_step, unit="step", disable=None, dynamic_ncols=True)

    def _delete_lines_after(self, step):
        path = self.folder / "log.jsonl"
        if path.is_file():
            lines = path.read_bytes().splitlines(keepends=True)
            kept = [line for line in lines if line.endswith(b"\n") and step_of(line) <= step]
            with replacing(path) as temporary:
                temporary.write_bytes(b"".join(kept))

    def _delete_samples_after(self, step):
        for path in (self.folder / "samples").glob("*.png"):
            named = re.fullmatch("([0-9]+)_([0-9]+)", path.stem)  # other pictures are not this program's
            if named and (int(named[1]) - 1) * self.steps_per_epoch + int(named[2]) > step:
                path.unlink()

    def record(self, d_loss, g_loss, d_real, d_fake):
        """Takes the scalar tensors of one step; waits for nothing."""
        self.pending.append(paddle.stack([value.detach() for value in (d_loss, g_loss, d_real, d_fake)]))
        self.step += 1
        self.bar.update()

    def fetch(self):
        """Brings what is pending from the device, as the mean over all ranks, which must all call this.

        Raises FloatingPointError when a number in it is not finite.
        """
        if self.pending:
            rows = ranks.average(paddle.stack(self.pending)).numpy()
            self.pending = []
            self.losses = np.concatenate([self.losses, rows])
            if not np.isfinite(rows).all():
                raise FloatingPointError("a loss")

    def seconds(self):
        """Training time of the run, with what it had before it was interrupted."""
        return self.seconds_before + time.perf_counter() - self.started

    @contextmanager
    def aside(self):
        """What happens inside the block does not count in the images per second."""
        before = time.perf_counter()
        yield
        self.logged_seconds += time.perf_counter() - before

    def log(self, scores, reals=None):
        """Prints the status line and appends the same numbers to log.jsonl.

        Where there are `scores` (name → number), the line has them, beside those of the RealFaces `reals`.
        """
        self.fetch()
        seconds = self.seconds()
        steps = self.step - self.logged_step
        speed = steps * self.batch_size / max(seconds - self.logged_seconds, 1e-9)
        means = self.losses[self.logged_step:].mean(axis=0)
        floor = {f"real_{name}": reals.scores[name] for name in ("face_fd", "swd", "ms_ssim")} if scores else {}
        line = {"step": self.step, "epoch": (self.step - 1) // self.steps_per_epoch + 1,
                "images_seen": self.step * self.batch_size, "seconds": round(seconds, 1),
                "images_per_second": round(speed, 1),
                **{name: round(float(value), 4) for name, value in zip(COLUMNS, means)},
                "memory_mb": round(memory_mb()),
                **{name: round(value, 4) for name, value in (scores | floor).items()}}
        self.logged_step, self.logged_seconds = self.step, self.seconds()
        with open(self.folder / "log.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")
        left = (self.total_steps - self.step) * self.batch_size / speed
        self.bar.write("epoch {epoch:3d}  step {step:6d}  images {images_seen:8d}  D loss {d_loss:.3f}  G loss {g_loss:.3f}"
                       "  D(x) {d_real:.3f}  D(G(z)) {d_fake:.3f}  {images_per_second:.1f} images/s"
                       .format(**line) + f"  {clock(left)} left  {line['memory_mb']} MB"
                       + ("  face FD {face_fd:.1f} (real faces: {real_face_fd:.1f})  SWD {swd:.1f} ({real_swd:.1f})"
                          "  MS-SSIM {ms_ssim:.3f} ({real_ms_ssim:.3f})".format(**line) if scores else ""))
        if self.board:
            for name in (*COLUMNS, "images_per_second", *scores, *floor):
                self.board.add_scalar(name, line[name], self.step)
        if self.step % (PATIENCE * LOG_EVERY) == 0:
            self.judge_balance()

    def save_losses(self):
        """Writes losses.npy (float32 [steps, 4], see COLUMNS) and draws loss.png."""
        self.fetch()
        with replacing(self.folder / "losses.npy") as temporary:
            np.save(temporary, self.losses)
        figures.save_losses(self.folder / "loss.png", self.losses, self.steps_per_epoch)

    def samples(self, faces):
        """Saves a grid of generated faces as samples/EEEE_BBBBBB.png: the epoch, and the step within it."""
        epoch, batch = divmod(self.step - 1, self.steps_per_epoch) if self.step else (-1, -1)
        picture = figures.grid(faces, columns=10)
        figures.save_picture(self.folder / "samples" / f"{epoch + 1:04d}_{batch + 1:06d}.png", picture)
        if self.board:
            self.board.add_image("samples", picture, self.step)

    def judge_balance(self):
        """Warns when D has won, in the mean of the last PATIENCE status lines."""
        *_, d_real, d_fake = self.losses[-PATIENCE * LOG_EVERY:].mean(axis=0)
        if d_real > self.certain[0] and d_fake < self.certain[1]:
            self.warn(f"D has told real from fake almost without error for {PATIENCE * LOG_EVERY} steps (D(x) "
                      f"{d_real:.2f}, D(G(z)) {d_fake:.2f}), so G learns little. If the samples do not get better: start again "
                      "with --fresh and more photos, a smaller --lr-d, or more --g-steps.")

    def judge_variety(self, faces, reals):
        """Warns when generated faces are far more alike than the RealFaces `reals`, at most lines and by PATIENCE of them.

        To be called at each status line that is a multiple of LOG_EVERY, so that an interruption changes nothing.
        """
        alike = metrics.ms_ssim(faces) > reals.similarity + ALIKE_THRESHOLD * (1 - reals.similarity)
        self.suspicions["alike"] = max(0, self.suspicions["alike"] + (1 if alike else -1))
        if self.suspicions["alike"] >= PATIENCE:
            self.suspicions["alike"] = 0  # and again only after as long a time
            self.warn("The generated faces look alike. Early in a run that may pass; if it stays so, it is mode collapse: start "
                      "again with --fresh and a smaller --lr-g, a larger --batch, or another --seed.")

    def warn(self, sentence):
        """Prints a warning where the bar does not overwrite it."""
        self.bar.write(f"WARNING, step {self.step}: {sentence}")

    def close(self):
        """Closes the progress bar and VisualDL's log."""
        self.bar.close()
        if self.board:
            self.board.close()


def saved_losses(path, steps):
    """What losses.npy holds of the first so many steps: float32 [steps, 4], NaN where it holds nothing. Says if it is damaged."""
    rows = np.empty((0, 4), np.float32)
    if path.is_file():
        try:
            rows = np.load(path, allow_pickle=False)[:steps]
            if rows.dtype != np.float32 or rows.shape[1:] != (4,) or np.isinf(rows).any():
                raise ValueError
        except Exception:  # NumPy raises nearly anything, and a run can resume without its curve
            print(f"note: {path} could not be read, so its curve begins anew at step {steps}")
            rows = np.empty((0, 4), np.float32)
    return np.concatenate([rows, np.full((steps - len(rows), 4), np.nan, np.float32)])


def step_of(line):
    """The step that a line of log.jsonl is about; infinite for a line that was cut off or damaged."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return math.inf
    return step if type(step) is int else math.inf


def clock(seconds):
    """Seconds as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def open_board(folder):
    """VisualDL's writer. Raises UserError where the package is missing."""
    try:
        from visualdl import LogWriter
    except ImportError:
        raise UserError("--visualdl needs a package that is not installed; type: pip install visualdl") from None
    return LogWriter(logdir=str(folder))
