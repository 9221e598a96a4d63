"""How a command reads its options and how it ends: argparse types, errors as sentences, signals.

A command imports this first, as ruff.toml sorts it: Ctrl-C then ends it with one line while the libraries are imported, and a
Python or Paddle that is too old is named before anything fails. So this file imports the standard library alone, and this file
and the commands use no syntax that Python 3.7 lacks.
"""
import argparse
import errno
import os
import re
import signal
import sys
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path


def end_at_once(*_):
    """Ends the process with one line at Ctrl-C while a command imports its libraries: there is nothing to save yet."""
    os.write(2, f"{Path(sys.argv[0]).name}: interrupted\n".encode())
    os._exit(130)


# In a command, not in tests.
if Path(getattr(sys.modules["__main__"], "__file__", None) or "").resolve().parent == Path(__file__).resolve().parent.parent:
    signal.signal(signal.SIGINT, end_at_once)


def find_too_old():
    """The version of Python or Paddle that is too old for this program, as text; None where both are supported."""
    if sys.version_info < (3, 10):  # noqa: UP036  this file runs on those, too
        return f"Python {sys.version_info[0]}.{sys.version_info[1]}"
    from importlib import metadata  # Python 3.7 lacks it

    for name in ("paddlepaddle", "paddlepaddle-gpu"):
        with suppress(metadata.PackageNotFoundError):  # built by hand, or missing, which the import will say
            if re.match(r"[01]\.|2\.[0-5]\.", metadata.version(name)):
                return f"PaddlePaddle {metadata.version(name)}"
    return None


def refuse_too_old():
    """Ends the process, with one line, where Python or Paddle is too old."""
    old = find_too_old()
    if old:
        print(f"{Path(sys.argv[0]).name}: {old} is too old; this program needs Python 3.10 or newer and PaddlePaddle 2.6.2 or "
              "newer. On AI Studio, choose such an image when you create the project", file=sys.stderr)
        sys.exit(2)


refuse_too_old()
# Paddle gives these warnings at every start; the user need not act on them.
warnings.filterwarnings("ignore", message="No ccache found")
warnings.filterwarnings("ignore", message="When training, we now always track global mean and variance")


class UserError(Exception):
    """An error that one sentence explains to the user.

    `status` becomes the exit status: 2 for bad usage or input, 1 where the work itself failed.
    """

    def __init__(self, sentence, status=2):
        super().__init__(sentence)
        self.status = status


class Help(argparse.RawDescriptionHelpFormatter):
    """Shows the script's docstring as it stands, and each option's default unless its help says it in words."""

    def _get_help_string(self, action):
        said = "default" in action.help or action.default in (None, "", argparse.SUPPRESS) or isinstance(action.default, bool)
        return action.help + ("" if said else " (default: %(default)s)")


class Parser(argparse.ArgumentParser):
    """An argument parser that complains in one line. `usage` is what must be typed behind the command's name."""

    def __init__(self, description, usage="[options]"):
        super().__init__(description=description, usage=f"%(prog)s {usage}", formatter_class=Help, allow_abbrev=False)
        self._negative_number_matcher = re.compile(r"-\d")  # so that "-3,0,3" is the value of an option, and no option itself

    def error(self, message):
        raise UserError(f"{message}; --help lists the options")


def number(kind, minimum, maximum=10**9, below=float("inf")):
    """An argparse type: an `int` or `float` in [minimum, maximum] and smaller than `below`."""
    wanted = "a whole number" if kind is int else "a number"

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = float("nan")
        if not (minimum <= value <= maximum and value < below):
            limits = f" of at least {minimum}"
            limits += f" and at most {maximum}" if maximum < 10**9 or value > maximum else ""
            limits += f" and below {below}" if below < float("inf") else ""
            raise argparse.ArgumentTypeError(f"expected {wanted}{limits}, not {text[:40]!r}")
        return value

    return parse


MAX_FACES = 1_000_000  # drawn by one command
seed = number(int, 0, 2**63 - 1)
count = number(int, 1, MAX_FACES)


def seed_list(text):
    """An argparse type: "0,4-6" → [0, 4, 5, 6], of whole numbers, MAX_FACES at most."""
    seeds = []
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            first, last = seed(first), seed(last if dash else first)
            if last < first or last - first >= MAX_FACES - len(seeds):
                raise ValueError
            seeds += range(first, last + 1)
    except (ValueError, argparse.ArgumentTypeError):
        raise argparse.ArgumentTypeError(f"expected seeds like 0,4-6, {MAX_FACES:,} at most, not {text[:40]!r}") from None
    return seeds


def number_list(text):
    """An argparse type: "-3,0,1.5" → [-3.0, 0.0, 1.5]."""
    return [number(float, -100, 100)(part) for part in text.split(",")]


def picture_path(text, endings=(".png", ".jpg", ".jpeg", ".webp")):
    """An argparse type: a path whose ending says how to write a picture."""
    path = Path(text)
    if path.suffix.lower() not in endings or path.is_dir():
        raise argparse.ArgumentTypeError(f"expected a file name that ends in {' or '.join(endings)}, not {text!r}")
    return path


def printable(text):
    """Text from a file or a server, made safe for a terminal: characters that cannot be printed become escapes (\\n, \\x1b)."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape", "surrogatepass").decode() for sign in str(text))


def run_command(main):
    """Runs `main()` and ends the process: status 0, or one line on stderr and another status.

    Where the reader of the output has ended, as in `… | head`, it ends without a line.
    """
    if signal.getsignal(signal.SIGINT) is end_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    name = Path(sys.argv[0]).name
    for stream in (sys.stdout, sys.stderr):  # a file name that the terminal cannot show does not stop the work
        stream.reconfigure(errors="backslashreplace", line_buffering=True)  # a log file has each line at once
    try:
        main()
        return
    except UserError as error:
        sentence, status = str(error), error.status
    except KeyboardInterrupt:
        sentence, status = "interrupted", 130
    except BrokenPipeError:
        os._exit(128 + 13)  # the status of a process that SIGPIPE ended; a usual exit would write to the pipe once more
    except OSError as error:
        sentence, status = describe_os_error(error), 1
    except (MemoryError, RuntimeError, SystemError) as error:
        gpu_error = re.search(r"(CUDA|CUDNN|CUBLAS|CURAND|NCCL) error.*", str(error))
        if is_out_of_memory(error):
            sentence, status = "out of memory: try a smaller --batch, --channels or --n (with pretreat.py, fewer --workers)", 1
        elif gpu_error:
            sentence, status = (f"the GPU failed ({gpu_error[0].strip()}); type the same command again, and if it fails again "
                                "see \"No usable GPU\" in the README, or add --device cpu"), 1
        else:
            raise
    print(f"{name}: {printable(sentence)}", file=sys.stderr)
    sys.exit(status)


@contextmanager
def stop_signals(patient=False):
    """Yields a list to which Ctrl-C or SIGTERM adds its number; the block can then finish what it is doing, and stop.

    A second signal ends the process at once, unless `patient`: Paddle's launcher always sends several.
    """
    received, handlers = [], {}

    def note(number, _frame):
        received.append(number)
        if not patient:
            restore()

    def restore():
        for number, handler in handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        handlers[number] = signal.signal(number, note)
    try:
        yield received
    finally:
        restore()


def describe_os_error(error):
    """One sentence for an `OSError`, with the file's name where it is known."""
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
        return "the disk is full: free some space and type the same command again; earlier files are unharmed"
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def is_out_of_memory(error):
    """Whether an exception says that CPU or GPU memory ran out (Paddle raises several types)."""
    return isinstance(error, MemoryError) or any(
        sign in str(error) for sign in ("ResourceExhausted", "Out of memory", "out of memory"))
