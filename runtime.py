"""Where a command runs and how it ends: CPU threads, maths-library switches, the device, errors as sentences.

Import this before Paddle: the maths libraries read their settings once, when they are loaded.
"""
import argparse
import ctypes
import errno
import importlib.metadata
import importlib.util
import os
import platform
import re
import signal
import sys
import warnings
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path


def end_at_once(*_):
    """Ctrl-C while a command still imports its libraries: nothing is to be saved, and a traceback would tell nobody anything."""
    os.write(2, f"{Path(sys.argv[0]).name}: interrupted\n".encode())
    os._exit(130)


if Path(getattr(sys.modules["__main__"], "__file__", None) or "").resolve().parent == Path(__file__).resolve().parent:  # not in tests
    signal.signal(signal.SIGINT, end_at_once)



def refuse_what_is_too_old():
    """Ends the process, with one line, where Python or Paddle are of a time that this program does not know."""
    paddle = ""  # built by hand, or missing, which the import will say
    for name in ("paddlepaddle", "paddlepaddle-gpu"):
        with suppress(importlib.metadata.PackageNotFoundError):
            paddle = importlib.metadata.version(name)
    old = f"Python {sys.version_info[0]}.{sys.version_info[1]}" if sys.version_info < (3, 10) else None
    if re.match(r"[01]\.|2\.[0-5]\.", paddle):
        old = old or f"PaddlePaddle {paddle}"
    if old:
        print(f"{Path(sys.argv[0]).name}: {old} is too old; this program needs Python 3.10 or newer and PaddlePaddle 2.6.2 or "
              "newer. On AI Studio, choose such an image when you create the project", file=sys.stderr)
        sys.exit(2)


refuse_what_is_too_old()

import psutil  # noqa: E402  (from here on, importing takes time)


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


MAX_FACES = 1_000_000  # that one command draws
seed = number(int, 0, 2**63 - 1)
count = number(int, 1, MAX_FACES)


def printable(text):
    """Text from a file or a server, such that it cannot steer a terminal: what has no shape is written as an escape (\\n, \\x1b)."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape", "surrogatepass").decode() for sign in str(text))


def run_command(main):
    """Runs `main()` and ends the process: status 0, or one line on stderr and a status that is not 0."""
    if signal.getsignal(signal.SIGINT) is end_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)
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
        gpu_error = re.search(r"(CUDA|CUDNN|CUBLAS|CURAND|NCCL) error.*", str(error))
        if is_out_of_memory(error):
            sentence, status = "out of memory: try a smaller --batch or --channels (with pretreat.py, fewer --workers)", 1
        elif gpu_error:
            sentence, status = (f"the GPU failed ({gpu_error[0].strip()}); type the same command again, and if it fails again see "
                                "\"No usable GPU\" in the README, or add --device cpu"), 1
        else:
            raise
    print(f"{name}: {printable(sentence)}", file=sys.stderr)
    sys.exit(status)


@contextmanager
def stop_signals(patient=False):
    """Yields a list that stays empty until Ctrl-C or SIGTERM puts its number in, so that the work under way is finished.

    A second one then ends the process at once, unless `patient`: Paddle's launcher always sends several.
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
    """Sets how many threads compute and, on AMD processors, the maths library's fast path, unless the user set them.

    An OMP_NUM_THREADS of 1 does not count; who wants a single thread sets MKL_NUM_THREADS.

    Paddle computes with Intel's MKL, which takes its slow path on other makers' processors.
    """
    if os.environ.get("OMP_NUM_THREADS", "1") == "1":  # importing Paddle sets it to 1, for whatever that process starts, too
        cores = min(usable_cpus(), psutil.cpu_count(logical=False) or usable_cpus())
        processes = int(os.environ.get("PADDLE_LOCAL_SIZE", 1))  # how many Paddle's launcher started on this machine
        start_threads(os.environ.setdefault("MKL_NUM_THREADS", str(max(1, cores // processes))))
    processor = describe_processor()
    if "AuthenticAMD" in processor:  # 7 and 5 are MKL's numbers for its AVX-512 and AVX2 code
        avx512 = all(f" avx512{part}" in processor for part in ("f", "cd", "bw", "dq", "vl"))
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "7" if avx512 else "5")


def start_threads(count):
    """Lets OpenMP, with which MKL, oneDNN and Paddle's own operators share out their work, take `count` threads (text).

    Its library, which Paddle brings, reads OMP_NUM_THREADS once, when it starts. Starting it here spares the process
    the variable, about which Paddle prints a warning.
    """
    found = importlib.util.find_spec("paddle")  # without importing it
    library = Path(found.submodule_search_locations[0]) / "libs" / "libiomp5.so" if found else None
    if library is None or not library.exists():  # it is there on Linux, x86
        return
    try:
        openmp = ctypes.CDLL("libiomp5.so", mode=os.RTLD_NOLOAD)  # somebody else's, beside which no other may run
    except OSError:
        openmp = ctypes.CDLL(str(library))
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = count
    openmp.omp_get_max_threads()  # starts it
    del os.environ["OMP_NUM_THREADS"]
    if before:
        os.environ["OMP_NUM_THREADS"] = before


def describe_processor():
    """The processor's maker and, on Linux, the instructions it knows."""
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()


def keep_freed_memory():
    """Lets this process keep memory that it frees (until it ends), where the C library is GNU's.

    Paddle frees and allocates every tensor anew. Memory fresh from the system costs a page fault every 4 KB: on large
    tensors that takes several times as long as adding or activating them.
    """
    M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # from mallopt(3)
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return  # another C library
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2 ** 31 - 1)


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


def picture_path(text, endings=(".png", ".jpg", ".jpeg", ".webp")):
    """An argparse type: a path whose ending says how to write a picture."""
    path = Path(text)
    if path.suffix.lower() not in endings or path.is_dir():
        raise argparse.ArgumentTypeError(f"expected a file name that ends in {' or '.join(endings)}, not {text!r}")
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


def choose_device(name, aloud=False):
    """Makes `name` (auto, cpu or gpu) Paddle's device and returns it as cpu or gpu.

    Says which it is when it is to be said `aloud`, and always where a Paddle that is made for GPUs finds none. Raises UserError
    where a GPU is asked for and Paddle cannot use one.
    """
    import paddle

    trouble = gpu_trouble() if name != "cpu" else None
    launched_for_gpu = "FLAGS_selected_gpus" in os.environ  # by Paddle's launcher: the other processes count on it
    if trouble and (name == "gpu" or launched_for_gpu):
        raise UserError(f"--device gpu: no usable GPU ({trouble}); use --device cpu, or see \"No usable GPU\" in the README")
    device = "cpu" if name == "cpu" or trouble else "gpu"
    paddle.set_device(device)
    if device == "gpu":
        said = f"device: {paddle.device.cuda.get_device_name()}"
    else:
        keep_freed_memory()
        from training import onednn

        expected = trouble and paddle.is_compiled_with_cuda()
        aloud = aloud or expected
        why = f" (no usable GPU: {trouble})" if expected else ""
        slow = "" if onednn.usable() else f", with Paddle's own layers, which are slow ({onednn.library()})"
        said = f"device: cpu, {os.environ.get('MKL_NUM_THREADS', '?')} threads{why}{slow}"
    if aloud:
        print(said)
    return device


def choose_precision(choice, device):
    """The type to compute in on `device` (cpu or gpu) for --amp `choice`: float32, bfloat16 or float16; says what it took.

    A `choice` of None is auto on a CPU, off on a GPU. Raises UserError where the device cannot compute in the type asked for.
    """
    import paddle

    choice = choice or ("auto" if device == "cpu" else "off")
    why_not = device == "cpu" and cpu_without_bfloat16()
    if choice == "off" or (choice == "auto" and why_not):
        precision = "float32"
    elif device == "cpu":
        if choice == "float16" or why_not:
            raise UserError(f"--amp {choice}: {why_not or 'a CPU computes in bfloat16 or float32'}; leave --amp away, and the "
                            "program takes what it can")
        precision = "bfloat16"
    elif choice == "auto":
        precision = "bfloat16" if paddle.amp.is_bfloat16_supported() else "float16"
    elif choice == "bfloat16" and not paddle.amp.is_bfloat16_supported():
        raise UserError("--amp bfloat16: this GPU cannot compute in it (A100 and newer can); use --amp float16")
    else:
        precision = choice
    if choice != "off":
        print(f"precision: {precision}" + ("" if precision == "float32" else ", weights, statistics and losses in float32"))
    return precision


def cpu_without_bfloat16():
    """Why this CPU does not compute in bfloat16, in words; None where it does."""
    from training import onednn

    if not onednn.usable():
        return f"Paddle's own layers compute, in float32 ({onednn.library()})"
    native = any(flag in describe_processor() for flag in ("avx512_bf16", "amx_bf16"))
    return None if native else "this CPU does not compute in bfloat16"


def autocast(precision):
    """A context in which networks are computed in `precision`: on a GPU by paddle.amp, level O1, on a CPU by training/layers.py."""
    import paddle

    from training.layers import computing_in

    if paddle.get_device() == "cpu":
        return computing_in(precision)
    if precision == "float32":
        return nullcontext()
    # Paddle's own list lacks the transposed convolution, that is, the generator.
    return paddle.amp.auto_cast(dtype=precision, level="O1", custom_white_list={"conv2d_transpose"})


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
