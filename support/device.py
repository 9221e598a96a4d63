"""Where a command computes: CPU threads, the maths libraries' settings, the device, the precision, memory.

Paddle, and what is made of it, is imported where it is needed: pretreat.py counts CPUs without it.
"""
from support.cli import UserError

import ctypes
import importlib.util
import os
import platform
from contextlib import nullcontext
from pathlib import Path

import psutil


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

    The libraries read this when they first compute: call it before anything else computes, be Paddle imported or not.
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

    Its library, which Paddle brings, reads OMP_NUM_THREADS once, when it starts, that is, with the first operation, or here.
    """
    found = importlib.util.find_spec("paddle")  # without importing it
    library = Path(found.submodule_search_locations[0]) / "libs" / "libiomp5.so" if found else None
    if library is None or not library.exists():  # it is there on Linux, x86
        return
    try:
        openmp = ctypes.CDLL("libiomp5.so", mode=os.RTLD_NOLOAD)  # Paddle's, or somebody's beside which no other may run
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
    """Makes `name` (auto, cpu or gpu) Paddle's device, sets up the CPU, and returns the device as cpu or gpu.

    Call it before anything else computes. Says which it is when it is to be said `aloud`, and always where a Paddle that is made
    for GPUs finds none. Raises UserError where a GPU is asked for and Paddle cannot use one.
    """
    import paddle

    tune_cpu()
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
    """A context in which networks are computed in `precision`: on a GPU by paddle.amp, level O1, on a CPU by
    training/layers.py."""
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
