import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest

import files
import randomness
import runtime
from training import onednn
from zoo import Plan

ROOT = Path(runtime.__file__).parent


@pytest.mark.parametrize("processor, code", [
    ("AuthenticAMD flags : avx2 avx512f avx512dq avx512cd avx512bw avx512vl", "7"), ("AuthenticAMD flags : avx2 avx512f", "5"),
    ("AuthenticAMD flags : avx2", "5"), ("GenuineIntel flags : avx2 avx512f avx512dq avx512cd avx512bw avx512vl", None)])
def test_the_maths_library_is_set_up_unless_the_user_did(monkeypatch, processor, code):
    monkeypatch.setattr(runtime, "describe_processor", lambda: processor)
    monkeypatch.setattr(os, "environ", {})
    runtime.tune_cpu()
    assert 1 <= int(os.environ["MKL_NUM_THREADS"]) <= runtime.usable_cpus() and os.environ.get("MKL_DEBUG_CPU_TYPE") == code
    for environment, threads in (({"OMP_NUM_THREADS": "3"}, None), ({"OMP_NUM_THREADS": "1", "PADDLE_LOCAL_SIZE": "999"}, "1")):
        monkeypatch.setattr(os, "environ", dict(environment))
        runtime.tune_cpu()
        assert os.environ.get("MKL_NUM_THREADS") == threads
    monkeypatch.setattr(os, "environ", {"MKL_NUM_THREADS": "7", "MKL_DEBUG_CPU_TYPE": "4"})
    runtime.tune_cpu()
    assert os.environ == {"MKL_NUM_THREADS": "7", "MKL_DEBUG_CPU_TYPE": "4"}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the GNU C library has this setting")
def test_freed_memory_is_kept():
    """The second 100 MB costs no page faults."""
    script = """if True:
        import resource, runtime
        runtime.keep_freed_memory()
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
    assert runtime.choose_device("auto") == "cpu" and "cuDNN is not found" in capsys.readouterr().out
    monkeypatch.setenv("FLAGS_selected_gpus", "1")  # one of several processes must not go its own way
    with pytest.raises(runtime.UserError, match="cuDNN is not found"):
        runtime.choose_device("auto")
    with pytest.raises(runtime.UserError, match="--device gpu.*cuDNN is not found"):
        runtime.choose_device("gpu")


@pytest.mark.parametrize("choice, device, bfloat16, precision", [
    ("off", "gpu", True, "float32"), (None, "gpu", True, "float32"), ("auto", "gpu", True, "bfloat16"),
    ("auto", "gpu", False, "float16"), ("float16", "gpu", True, "float16"), ("bfloat16", "gpu", True, "bfloat16"),
    ("off", "cpu", True, "float32"), (None, "cpu", True, "bfloat16"), (None, "cpu", False, "float32"),
    ("auto", "cpu", False, "float32"), ("bfloat16", "cpu", True, "bfloat16")])
def test_precision_follows_the_device(monkeypatch, capsys, choice, device, bfloat16, precision):
    monkeypatch.setattr(paddle.amp, "is_bfloat16_supported", lambda: bfloat16)
    monkeypatch.setattr(runtime, "describe_processor", lambda: "flags : avx512f" + " avx512_bf16" * bfloat16)
    monkeypatch.setattr(onednn, "usable", lambda: True)
    assert runtime.choose_precision(choice, device) == precision
    said = capsys.readouterr().out
    assert precision in said or (choice == "off" or device == "gpu") and precision == "float32" and not said


def test_mixed_precision_covers_both_players(monkeypatch):
    """Paddle's own list of what may be computed in 16 bits lacks the generator's layers."""
    used = {}
    monkeypatch.setattr(paddle.amp, "auto_cast", lambda **options: used.update(options))
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    runtime.autocast("float16")
    assert used["dtype"] == "float16" and used["level"] == "O1" and "conv2d_transpose" in used["custom_white_list"]
    with runtime.autocast("float32"):
        assert paddle.ones([1]).dtype == paddle.float32


@pytest.mark.parametrize("choice, device", [("float16", "cpu"), ("bfloat16", "cpu"), ("bfloat16", "gpu")])
def test_a_precision_that_the_device_lacks(monkeypatch, choice, device):
    monkeypatch.setattr(paddle.amp, "is_bfloat16_supported", lambda: False)
    monkeypatch.setattr(runtime, "describe_processor", lambda: "flags : avx512f")
    with pytest.raises(runtime.UserError, match=f"--amp {choice}"):
        runtime.choose_precision(choice, device)


@pytest.mark.skipif(not onednn.FILE.with_name("libiomp5.so").exists(), reason="this Paddle computes without OpenMP's libiomp5")
@pytest.mark.parametrize("count", ["1", "3"])
def test_all_libraries_take_the_threads_without_paddles_warning(count):
    script = f"""
import runtime, ctypes, threading, paddle
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


@pytest.mark.parametrize("said, change", [
    ("Python 3.7 is too old", "sys.version_info = (3, 7, 4)"),
    ("PaddlePaddle 1.8.4 is too old", "import importlib.metadata as m; m.version = lambda name: '1.8.4'")])
def test_what_is_too_old_is_named(said, change):
    """AI Studio offers images with both; which to choose is said in one line, before anything fails to import."""
    done = subprocess.run([sys.executable, "-c", f"import sys; sys.argv = ['train.py']; {change}; import runtime"], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and said in done.stderr and "2.6.2" in done.stderr


@pytest.mark.parametrize("raised, said", [
    ("C++ Traceback\n0 paddle::…\nExternalError: CUDA error(700), an illegal memory access was encountered.\n  [Hint: …]", "CUDA error(700)"),
    ("(External) CUDNN error(8), CUDNN_STATUS_EXECUTION_FAILED.\n  [operator < conv2d > error]", "CUDNN error(8)"),
    ("ResourceExhaustedError: Out of memory error on GPU 0. Cannot allocate 2GB", "smaller --batch"),
    ("something else", None)])
def test_what_paddle_says_about_a_gpu_becomes_a_sentence(monkeypatch, capsys, raised, said):
    def fail():
        raise RuntimeError(raised)

    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(SystemExit if said else RuntimeError) as ended:
        runtime.run_command(fail)
    if said:
        err = capsys.readouterr().err
        assert ended.value.code == 1 and err.count("\n") == 1 and said in err and "Hint" not in err


def test_output_does_not_lag_behind_in_a_pipe():
    script = "import os, runtime; runtime.run_command(lambda: (print('a line'), os._exit(0)))"
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout == "a line\n"


def test_draws_depend_on_their_key_alone():
    first = randomness.draws(7, "order", 3).random(5)
    randomness.draws(7, "order", 4).random(5)
    assert (randomness.draws(7, "order", 3).random(5) == first).all()
    for other in ((8, "order", 3), (7, "flip", 3), (7, "order", 4), (7, "order", 3, 0)):
        assert (randomness.draws(*other).random(5) != first).all()


def test_noise_is_standard_normal_and_a_face_keeps_its_own():
    z = randomness.noise(0, "z for D", 5, 200, 100)
    assert z.dtype == np.float32 and abs(z.mean()) < 0.03 and z.std() == pytest.approx(1, abs=0.03)
    assert (randomness.face_inputs(Plan(), [9, 4])[1] == randomness.face_inputs(Plan(), range(5))[4]).all()


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), files.replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        raise ZeroDivisionError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]
    with files.replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_folder_takes_the_place_of_another(tmp_path, monkeypatch, can_exchange):
    if not can_exchange:
        monkeypatch.setattr(files, "exchange", lambda *_: False)
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    files.replace_folder(tmp_path / "new", tmp_path / "old")
    assert os.listdir(tmp_path) == ["old"] and os.listdir(tmp_path / "old") == ["new"]


def packages(name):
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    return [line for line in lines if line]


def test_what_leaves_paddle_and_numpy_as_they_are_names_neither():
    """AI Studio has both: a file that named them would exchange one Paddle for another."""
    base, gpu, cpu = map(packages, ("requirements-base.txt", "requirements.txt", "requirements-cpu.txt"))
    assert len(base) >= 10 and not any(re.match("paddle|numpy", line) for line in base)
    assert gpu[0] == cpu[0] == "-r requirements-base.txt" and all(re.match("paddle|numpy", line) for line in gpu[1:] + cpu[1:])
    assert [re.match("[a-z-]*", line)[0] for line in gpu if "paddle" in line] == ["paddlepaddle-gpu"]
    assert [re.match("[a-z-]*", line)[0] for line in cpu if "paddle" in line] == ["paddlepaddle"]
