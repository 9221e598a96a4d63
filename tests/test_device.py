"""Threads, the maths libraries' settings, the device, the precision."""
import os
import platform
import subprocess
import sys
from pathlib import Path

import paddle
import pytest

from support import cli, device
from support.device import choose_precision
from training import onednn

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("processor, code", [
    ("AuthenticAMD flags : avx2 avx512f avx512dq avx512cd avx512bw avx512vl", "7"), ("AuthenticAMD flags : avx2 avx512f", "5"),
    ("AuthenticAMD flags : avx2", "5"), ("GenuineIntel flags : avx2 avx512f avx512dq avx512cd avx512bw avx512vl", None)])
def test_the_maths_library_is_set_up_unless_the_user_did(monkeypatch, processor, code):
    monkeypatch.setattr(device, "describe_processor", lambda: processor)
    monkeypatch.setattr(os, "environ", {})
    device.tune_cpu()
    assert 1 <= int(os.environ["MKL_NUM_THREADS"]) <= device.usable_cpus() and os.environ.get("MKL_DEBUG_CPU_TYPE") == code
    for environment, threads in (({"OMP_NUM_THREADS": "3"}, None), ({"OMP_NUM_THREADS": "1", "PADDLE_LOCAL_SIZE": "999"}, "1")):
        monkeypatch.setattr(os, "environ", dict(environment))
        device.tune_cpu()
        assert os.environ.get("MKL_NUM_THREADS") == threads
    monkeypatch.setattr(os, "environ", {"MKL_NUM_THREADS": "7", "MKL_DEBUG_CPU_TYPE": "4"})
    device.tune_cpu()
    assert os.environ == {"MKL_NUM_THREADS": "7", "MKL_DEBUG_CPU_TYPE": "4"}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the GNU C library has this setting")
def test_freed_memory_is_kept():
    """The second 100 MB costs no page faults."""
    script = """if True:
        import resource
        from support import device
        device.keep_freed_memory()
        text = b"a" * 100_000_000
        del text
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        text = b"a" * 100_000_000
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"""
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert int(result.stdout) < 1000


def test_a_gpu_that_paddle_counts_but_cannot_use(monkeypatch, capsys):
    def set_device(name):
        if name == "gpu":
            raise RuntimeError("cuDNN is not found")

    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(paddle, "set_device", set_device)
    assert device.choose_device("auto") == "cpu" and "cuDNN is not found" in capsys.readouterr().out
    monkeypatch.setenv("FLAGS_selected_gpus", "1")  # one of several processes must not go its own way
    with pytest.raises(cli.UserError, match="cuDNN is not found"):
        device.choose_device("auto")
    with pytest.raises(cli.UserError, match="--device gpu.*cuDNN is not found"):
        device.choose_device("gpu")


@pytest.mark.parametrize("choice, device, bfloat16, precision", [
    ("off", "gpu", True, "float32"), (None, "gpu", True, "float32"), ("auto", "gpu", True, "bfloat16"),
    ("auto", "gpu", False, "float16"), ("float16", "gpu", True, "float16"), ("bfloat16", "gpu", True, "bfloat16"),
    ("off", "cpu", True, "float32"), (None, "cpu", True, "bfloat16"), (None, "cpu", False, "float32"),
    ("auto", "cpu", False, "float32"), ("bfloat16", "cpu", True, "bfloat16")])
def test_precision_follows_the_device(monkeypatch, capsys, choice, device, bfloat16, precision):
    monkeypatch.setattr(paddle.amp, "is_bfloat16_supported", lambda: bfloat16)
    monkeypatch.setattr("support.device.describe_processor", lambda: "flags : avx512f" + " avx512_bf16" * bfloat16)
    monkeypatch.setattr(onednn, "usable", lambda: True)
    assert choose_precision(choice, device) == precision
    said = capsys.readouterr().out
    assert precision in said or (choice == "off" or device == "gpu") and precision == "float32" and not said


def test_mixed_precision_covers_both_players(monkeypatch):
    """Paddle's own list of layers to compute in 16 bits lacks those of the generator."""
    used = {}
    monkeypatch.setattr(paddle.amp, "auto_cast", lambda **options: used.update(options))
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    device.autocast("float16")
    assert used["dtype"] == "float16" and used["level"] == "O1" and "conv2d_transpose" in used["custom_white_list"]
    with device.autocast("float32"):
        assert paddle.ones([1]).dtype == paddle.float32


@pytest.mark.parametrize("choice, device", [("float16", "cpu"), ("bfloat16", "cpu"), ("bfloat16", "gpu")])
def test_a_precision_that_the_device_lacks(monkeypatch, choice, device):
    monkeypatch.setattr(paddle.amp, "is_bfloat16_supported", lambda: False)
    monkeypatch.setattr("support.device.describe_processor", lambda: "flags : avx512f")
    with pytest.raises(cli.UserError, match=f"--amp {choice}"):
        choose_precision(choice, device)


@pytest.mark.skipif(not onednn.FILE.with_name("libiomp5.so").exists(), reason="this Paddle computes without OpenMP's libiomp5")
@pytest.mark.parametrize("count", ["1", "3"])
def test_all_libraries_take_the_threads_without_paddles_warning(count):
    script = f"""
import ctypes, threading, paddle
from support import device
device.tune_cpu()
paddle.matmul(paddle.ones([64, 64]), paddle.ones([64, 64]))
openmp = ctypes.CDLL({str(onednn.FILE.with_name("libiomp5.so"))!r})
print(openmp.omp_get_max_threads())
thread = threading.Thread(target=lambda: print(openmp.omp_get_max_threads()))
thread.start(); thread.join()
"""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True,
                          env={**environment, "MKL_NUM_THREADS": count})
    assert done.stdout.split() == [count, count] and "OMP_NUM_THREADS" not in done.stderr
