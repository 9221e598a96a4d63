"""Where a command runs and how it ends: CPU threads, maths-library switches, the device, errors as sentences.

Import this before Paddle: the maths libraries read their settings once, when they are loaded.
"""
import argparse
import errno
import os
import platform
import sys
import warnings
from pathlib import Path

import psutil


class UserError(Exception):
    """Something that one sentence explains to the user.

    `status` becomes the exit status: 2 for bad usage or input, 1 when the work itself failed.
    """

    def __init__(self, sentence, status=2):
        super().__init__(sentence)
        self.status = status


class Parser(argparse.ArgumentParser):
    """An argument parser that shows the script's docstring as it stands and complains in one line."""

    def __init__(self, description):
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter,
                         allow_abbrev=False)

    def error(self, message):
        raise UserError(f"{message}; --help lists the options")


def number(kind, minimum, maximum=float("inf"), below=float("inf")):
    """An argparse type: an `int` or `float` in [minimum, maximum] and smaller than `below`."""
    wanted = "a whole number" if kind is int else "a number"
    limits = f" of at least {minimum}"
    limits += f" and at most {maximum}" if maximum < float("inf") else ""
    limits += f" and below {below}" if below < float("inf") else ""

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = float("nan")
        if not (minimum <= value <= maximum and value < below):
            raise argparse.ArgumentTypeError(f"expected {wanted}{limits}, not {text!r}")
        return value

    return parse


def run_command(main):
    """Runs `main()` and ends the process: status 0, or one line on stderr and a status that is not 0."""
    name = Path(sys.argv[0]).name
    for stream in (sys.stdout, sys.stderr):  # a file name that the terminal cannot show must not stop the work
        stream.reconfigure(errors="backslashreplace", line_buffering=True)  # and a log file must not lag behind
    try:
        main()
        return
    except UserError as error:
        sentence, status = str(error), error.status
    except KeyboardInterrupt:
        sentence, status = "interrupted", 130
    except OSError as error:
        sentence, status = describe_os_error(error), 1
    except (MemoryError, RuntimeError, SystemError) as error:
        if not is_out_of_memory(error):
            raise
        sentence, status = "out of memory: try a smaller --batch or --channels (with pretreat.py, fewer --workers)", 1
    print(f"{name}: {sentence}", file=sys.stderr)
    sys.exit(status)


def describe_os_error(error):
    """One sentence for an `OSError`, with the file's name where it is known."""
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
        return "the disk is full: free some space and type the same command again; what was there before is unharmed"
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def is_out_of_memory(error):
    """Whether an exception says that CPU or GPU memory ran out (Paddle uses several types for it)."""
    return isinstance(error, MemoryError) or any(
        sign in str(error) for sign in ("ResourceExhausted", "Out of memory", "out of memory"))


def usable_cpus():
    """How many CPUs this process may keep busy: its affinity, and the quota of the container it is in."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cpus = min(cpus, round(int(quota) / int(period)))
    except (OSError, ValueError):
        pass  # not Linux, or no quota
    return max(1, cpus)


def tune_cpu():
    """Sets the maths library's thread count and, on AMD processors, its fast path, unless the user set them.

    Paddle computes with Intel's MKL, which takes its slow path on other makers' processors.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        cores = psutil.cpu_count(logical=False) or usable_cpus()
        os.environ.setdefault("MKL_NUM_THREADS", str(min(usable_cpus(), cores)))
    if is_amd():
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")


def is_amd():
    """Whether the processor is one of AMD's."""
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return "AuthenticAMD" in platform.processor()


def picture_path(text):
    """An argparse type: a path whose ending says how to write a picture."""
    path = Path(text)
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp") or path.is_dir():
        raise argparse.ArgumentTypeError(f"expected a file name that ends in .png or .jpg, not {text!r}")
    return path


def gpu_trouble():
    """Why Paddle cannot compute on a GPU here, in words; None where it can."""
    import paddle

    if not paddle.is_compiled_with_cuda():
        return f"this Paddle {paddle.__version__} is built for CPUs"
    if paddle.device.cuda.device_count() == 0:
        return "Paddle sees none"
    try:  # a driver that is too old, a missing cuDNN, a GPU newer than Paddle: all show in the first convolution
        paddle.set_device("gpu")
        paddle.nn.functional.conv2d(paddle.ones([1, 1, 4, 4]), paddle.ones([1, 1, 2, 2])).numpy()
    except Exception as error:
        return (str(error).strip() or type(error).__name__).splitlines()[-1]
    return None


def choose_device(name):
    """Makes `name` (auto, cpu or gpu) Paddle's device and returns it as cpu or gpu; `auto` says what it took.

    Raises UserError where a GPU is asked for and Paddle cannot use one.
    """
    import paddle

    trouble = gpu_trouble() if name != "cpu" else None
    if name == "gpu" and trouble:
        raise UserError(f"--device gpu: no usable GPU ({trouble}); use --device cpu, or see \"No usable GPU\" in the README")
    device = "cpu" if name == "cpu" or trouble else "gpu"
    paddle.set_device(device)
    if device == "gpu":
        print(f"device: {paddle.device.cuda.get_device_name()}")
    else:
        why = f" (no usable GPU: {trouble})" if trouble else ""
        print(f"device: cpu, {os.environ.get('MKL_NUM_THREADS', '?')} threads{why}")
    return device


def memory_mb():
    """What the run holds, in MB: GPU memory allocated by Paddle at its peak, or else resident main memory."""
    import paddle

    if paddle.get_device().startswith("gpu"):
        return paddle.device.cuda.max_memory_allocated() / 1e6
    return psutil.Process().memory_info().rss / 1e6


tune_cpu()
# Paddle says these at every start; neither asks anything of the user.
warnings.filterwarnings("ignore", message="No ccache found")
warnings.filterwarnings("ignore", message="When training, we now always track global mean and variance")
