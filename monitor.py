"""What a run tells: the status line, log.jsonl, losses.npy, loss.png, VisualDL, and warnings about a GAN going wrong."""
import json
import math
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import paddle
from tqdm import tqdm

import figures
import ranks
from files import replacing
from runtime import UserError, memory_mb

COLUMNS = ("d_loss", "g_loss", "d_real", "d_fake")  # of losses.npy
LOG_EVERY = 100  # steps between two status lines
PATIENCE = 5  # how many times LOG_EVERY steps something must look wrong before a warning


class Monitor:
    """Collects the numbers of each step on the device and fetches them only when a line is due.

    folder           the run's folder; what it holds beyond `start_step` (from a run cut short) is dropped
    batch_size       faces a step
    steps_per_epoch  steps an epoch
    total_steps      where the run ends, for the time that is left
    seconds          training time before `start_step`
    visualdl         also write VisualDL's log, into folder/visualdl
    sure             D's mean probability of "real" on reals above which it has won
    """

    def __init__(self, folder, start_step, total_steps, steps_per_epoch, batch_size, seconds=0.0, visualdl=False,
                 sure=0.95):
        self.sure = sure
        self.folder, self.batch_size, self.steps_per_epoch = Path(folder), batch_size, steps_per_epoch
        self.step, self.total_steps = start_step, total_steps
        self.started, self.seconds_before = time.perf_counter(), seconds
        self.logged_step, self.logged_seconds = start_step, seconds
        self.pending = []  # tensors [4] still on the device
        self.losses = self._saved_losses(start_step)
        self._drop_lines_after(start_step)
        self.won, self.alike_since = 0, None  # for how many lines D has won; the step since which samples look alike
        self.board = open_board(self.folder / "visualdl") if visualdl else None
        self.bar = tqdm(total=total_steps, initial=start_step, unit="step", disable=None, dynamic_ncols=True)

    def _saved_losses(self, steps):
        path = self.folder / "losses.npy"
        rows = np.load(path, allow_pickle=False)[:steps] if path.exists() else np.empty((0, 4), np.float32)
        missing = np.full((steps - len(rows), 4), np.nan, np.float32)  # where the file was taken away
        return np.concatenate([rows, missing])

    def _drop_lines_after(self, step):
        path = self.folder / "log.jsonl"
        if path.exists():
            lines = path.read_text(errors="replace").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and step_of(line) <= step]
            with replacing(path) as temporary:
                temporary.write_text("".join(kept))

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

    def log(self, scores):
        """Prints the status line and appends the same numbers to log.jsonl; `scores` (name → number) come along."""
        self.fetch()
        seconds = self.seconds()
        steps = self.step - self.logged_step
        speed = steps * self.batch_size / max(seconds - self.logged_seconds, 1e-9)
        means = self.losses[self.logged_step:].mean(axis=0)
        line = {"step": self.step, "epoch": (self.step - 1) // self.steps_per_epoch + 1,
                "images_seen": self.step * self.batch_size, "seconds": round(seconds, 1),
                "images_per_second": round(speed, 1),
                **{name: round(float(value), 4) for name, value in zip(COLUMNS, means)},
                "memory_mb": round(memory_mb()),
                **{name: round(value, 4) for name, value in scores.items()}}
        self.logged_step, self.logged_seconds = self.step, seconds
        with open(self.folder / "log.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")
        left = (self.total_steps - self.step) * self.batch_size / speed
        self.bar.write("epoch {epoch:3d}  step {step:6d}  images {images_seen:8d}  D loss {d_loss:.3f}  G loss {g_loss:.3f}"
                       "  D(x) {d_real:.3f}  D(G(z)) {d_fake:.3f}  {images_per_second:.1f} images/s"
                       .format(**line) + f"  {clock(left)} left  {line['memory_mb']} MB"
                       + (f"  SWD {scores['swd']:.1f}  MS-SSIM {scores['ms_ssim']:.3f}" if scores else ""))
        if self.board:
            for name in (*COLUMNS, "images_per_second", *scores):
                self.board.add_scalar(name, line[name], self.step)
        self._judge_balance(line)

    def save_losses(self):
        """Writes losses.npy (float32 [steps, 4], see COLUMNS) and draws loss.png."""
        self.fetch()
        with replacing(self.folder / "losses.npy") as temporary:
            np.save(temporary, self.losses)
        figures.save_losses(self.folder / "loss.png", self.losses, self.steps_per_epoch)

    def samples(self, faces, reals):
        """Saves a grid of generated faces as samples/EEEE_BBBBBB.png: the epoch, and the step within it."""
        epoch, batch = divmod(self.step - 1, self.steps_per_epoch) if self.step else (-1, -1)
        picture = figures.grid(faces, columns=10)
        figures.save_picture(self.folder / "samples" / f"{epoch + 1:04d}_{batch + 1:06d}.png", picture)
        if self.board:
            self.board.add_image("samples", picture, self.step)
        if self.step:
            self._judge_variety(faces, reals)

    def _judge_balance(self, line):
        self.won = self.won + 1 if line["d_real"] > self.sure and line["d_fake"] < 0.05 else 0
        if self.won == PATIENCE:
            self.warn(f"D has told real from fake almost without error for {PATIENCE * LOG_EVERY} steps (D(x) near 1, "
                      "D(G(z)) near 0), so G learns little. If the samples do not get better: start again with "
                      "--fresh and more photos, a smaller --lr-d, or more --g-steps.")

    def _judge_variety(self, faces, reals):
        if self.step < PATIENCE * LOG_EVERY or variety(faces) >= 0.4 * variety(reals):
            self.alike_since = None
            return
        self.alike_since = self.alike_since or self.step
        if self.step - self.alike_since >= PATIENCE * LOG_EVERY:
            self.alike_since = self.step  # and again only after as long a time
            self.warn("The generated faces have come to look alike (mode collapse). If it stays so: start again with "
                      "--fresh and a smaller --lr-g, a larger --batch, or another --seed.")

    def warn(self, sentence):
        """Prints a warning where the bar does not overwrite it."""
        self.bar.write(f"WARNING, step {self.step}: {sentence}")

    def close(self):
        """Takes the bar away and finishes VisualDL's log."""
        self.bar.close()
        if self.board:
            self.board.close()


def step_of(line):
    """The step that a line of log.jsonl is about; infinite for a line that was cut off or damaged."""
    try:
        return json.loads(line)["step"]
    except (ValueError, TypeError, KeyError):
        return math.inf


def variety(faces):
    """How much uint8 faces [N, S, S, 3] differ: the standard deviation over the faces, averaged over the pixels, 0–127."""
    return float(faces.astype(np.float32).std(axis=0).mean())


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
