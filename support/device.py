"""Where a command computes: CPU threads, the maths libraries' settings, the device, the precision, memory.

Paddle, and modules that import it, are imported where they are needed: pretreat.py counts CPUs without them.
"""
from support.cli import UserError

import ctypes
import os
import platform
from contextlib import nullcontext
from pathlib import Path

import psutil


def usable_cpus():
    """How many CPUs this process may use: by its affinity, and by the quota of its container."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cpus = min(cpus, round(int(quota) / int(period)))
    except (OSError, ValueError):
        pass  # not Linux, or no quota
    return max(1, cpus)


def tune_cpu():
    """Sets how many threads compute and, on AMD processors, the fast path of the maths library, unless the user set them.

    Call it after Paddle is imported and before anything computes, which is when the libraries read the settings. Importing Paddle
    sets OMP_NUM_THREADS to 1, so that a 1 does not count as the user's; MKL_NUM_THREADS=1 gives a single thread.

    Paddle computes with Intel's MKL, which takes a slow path on processors of other makers.
    """
    if os.environ.get("OMP_NUM_THREADS", "1") == "1":
        cores = min(usable_cpus(), psutil.cpu_count(logical=False) or usable_cpus())
        processes = int(os.environ.get("PADDLE_LOCAL_SIZE", 1))  # started by Paddle's launcher on this machine
        start_threads(os.environ.setdefault("MKL_NUM_THREADS", str(max(1, cores // processes))))
    processor = describe_processor()
    if "AuthenticAMD" in processor:  # 7 and 5 are MKL's numbers for its AVX-512 and AVX2 code
        avx512 = all(f" avx512{part}" in processor for part in ("f", "cd", "bw", "dq", "vl"))
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "7" if avx512 else "5")


def start_threads(count):
    """Starts OpenMP, which MKL, oneDNN and Paddle's own operators compute with, with `count` threads (text).

    Its library reads OMP_NUM_THREADS once, when it starts: with the first operation, or here.
    """
    try:
        openmp = ctypes.CDLL("libiomp5.so", mode=os.RTLD_NOLOAD)  # the one that Paddle, or a program around it, has loaded
    except (OSError, AttributeError):
        return  # not Linux on x86
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = count
    openmp.omp_get_max_threads()  # its first call starts it
    del os.environ["OMP_NUM_THREADS"]
    if before:
        os.environ["OMP_NUM_THREADS"] = before


def describe_processor():
    """The processor's maker and, on Linux, its instruction sets."""
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()


def keep_freed_memory():
    """Makes this process keep the memory that it frees for later use, where the C library is GNU's.

    Paddle allocates and frees every tensor. New memory from the system costs a page fault every 4 KB: for a large tensor that
    takes several times as long as adding or activating it.
    """
    M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # from mallopt(3)
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return  # another C library
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2 ** 31 - 1)


def gpu_trouble():
    """Why Paddle cannot compute on a GPU here, as a phrase; None where it can."""
    import paddle

    if not paddle.is_compiled_with_cuda():
        return f"this Paddle {paddle.__version__} is built for CPUs"
    if paddle.device.cuda.device_count() == 0:
        return "Paddle finds no GPU"
    try:  # with a driver that is too old, without cuDNN, or on a GPU newer than Paddle the first convolution fails
        paddle.set_device("gpu")
        paddle.nn.functional.conv2d(paddle.ones([1, 1, 4, 4]), paddle.ones([1, 1, 2, 2])).numpy()
    except Exception as error:
        return (str(error).strip() or type(error).__name__).splitlines()[-1]
    return None


def choose_device(name, aloud=False):
    """Makes `name` (auto, cpu or gpu) Paddle's device, sets up the CPU, and returns the device as cpu or gpu.

    Call it before anything computes. Prints the device where `aloud`, and always where a Paddle that is built for GPUs can use
    none. Raises UserError where a GPU is asked for and Paddle can use none.
    """
    import paddle

    tune_cpu()
    trouble = gpu_trouble() if name != "cpu" else None
    launched_for_gpu = "FLAGS_selected_gpus" in os.environ  # by Paddle's launcher, one process for each GPU
    if trouble and (name == "gpu" or launched_for_gpu):
        raise UserError(f"--device gpu: no usable GPU ({trouble}); use --device cpu, or see \"No usable GPU\" in the README")
    device = "cpu" if name == "cpu" or trouble else "gpu"
    paddle.set_device(device)
    if device == "cpu":
        keep_freed_memory()
    missed = trouble if paddle.is_compiled_with_cuda() else None
    if aloud or missed:
        print(f"device: {describe_device(device, missed)}")
    return device


def describe_device(device, missed=None):
    """What computes, as one phrase; `missed` is why a GPU that could be expected does not, or None."""
    if device == "gpu":
        import paddle

        return paddle.device.cuda.get_device_name()
    from training import onednn

    why = f" (no usable GPU: {missed})" if missed else ""
    slow = "" if onednn.usable() else f", with Paddle's own layers, which are slow ({onednn.library()})"
    return f"cpu, {os.environ.get('MKL_NUM_THREADS', '?')} threads{why}{slow}"


def choose_precision(choice, device):
    """The type to compute in on `device` (cpu or gpu) for --amp `choice`: float32, bfloat16 or float16.

    Prints it, unless the choice is off.
    A `choice` of None is auto on a CPU, off on a GPU. Raises UserError where the device cannot compute in the type asked for.
    """
    import paddle

    choice = choice or ("auto" if device == "cpu" else "off")
    why_not = device == "cpu" and cpu_without_bfloat16()
    if choice == "off" or (choice == "auto" and why_not):
        precision = "float32"
    elif device == "cpu":
        if choice == "float16" or why_not:
            raise UserError(f"--amp {choice}: {why_not or 'a CPU computes in bfloat16 or float32'}; leave out --amp, and the "
                            "program chooses")
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
    """Why this CPU does not compute in bfloat16, as a phrase; None where it does."""
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
    """The memory that the process holds, in MB: of the GPU the peak that Paddle allocated, else resident main memory."""
    import paddle

    if paddle.get_device().startswith("gpu"):
        return paddle.device.cuda.max_memory_allocated() / 1e6
    return psutil.Process().memory_info().rss / 1e6
