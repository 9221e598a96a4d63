"""Training on several devices or machines: how the processes communicate; one process alone does not.

`python -m paddle.distributed.launch` starts one process for each device and numbers them: these are the ranks. The rank 0
alone writes files. Every function here must be called by all ranks, in the same order, or they wait for each other forever.
"""
from support.cli import UserError

import ctypes
import os
import signal
import sys
from contextlib import contextmanager

import paddle
import paddle.distributed as dist

RANK = int(os.environ.get("PADDLE_TRAINER_ID", 0))
COUNT = int(os.environ.get("PADDLE_TRAINERS_NUM", 1))
LAUNCHED = "PADDLE_TRAINER_ID" in os.environ
LAUNCHER = os.getppid()
ASK_EVERY = 10


def join():
    """Meets the other ranks; from here on, only rank 0 prints."""
    if LAUNCHED and sys.platform == "linux":
        end_with_launcher()
    if COUNT == 1:
        return
    if RANK > 0:
        sys.stdout = open(os.devnull, "w")  # rank 0 prints for all; each rank prints its own errors
    say_last_words()
    if paddle.get_device() == "cpu":
        os.environ["PADDLE_DISTRI_BACKEND"] = "gloo"  # or a Paddle built for GPUs would take one after all
    dist.init_parallel_env()
    print(f"{COUNT} processes work together")


def end_with_launcher():
    """Asks Linux to send this process SIGTERM when the launcher dies, even by SIGKILL: its ranks would run on.

    The launcher puts each rank at the head of a session. What a shell started is not there, and may outlive it.
    """
    if os.getsid(0) != os.getpid():
        return
    PR_SET_PDEATHSIG = 1  # from prctl(2)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != LAUNCHER:  # it died before it could be asked for
        raise UserError("stopped, because the launcher has ended; type the same command again", status=1)


LAST_WORDS = ("stopped, most likely because another process of this run ended. The last checkpoint is kept; the same command "
              "resumes the run")


def say_last_words():
    """When another rank dies, Paddle aborts this one from C++, where no `except` can help: then says why, and ends."""
    @ctypes.CFUNCTYPE(None, ctypes.c_int)
    def end(_number):
        os.write(2, f"train.py: {LAST_WORDS}\n".encode())
        os._exit(1)

    paddle.disable_signal_handler()  # Paddle's own prints a C++ traceback
    ctypes.CDLL(None).signal(signal.SIGABRT, end)
    say_last_words.handler = end  # must live as long as the process


@contextmanager
def explained():
    """Makes a sentence of the exception that Paddle raises when another rank dies, where it does not abort."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        if "gloo" not in str(error) and "NCCL" not in str(error):
            raise
        raise UserError(LAST_WORDS, status=1) from None


def parallel(network):
    """A network of which every rank holds the same copy: a backward pass averages the gradients over the ranks.

    Batch normalisation takes its statistics over all ranks on GPUs; on CPUs, where Paddle cannot, over this rank's share.
    """
    if COUNT == 1:
        return network
    if paddle.get_device() != "cpu":
        network = paddle.nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return paddle.DataParallel(network)


def from_first(thing):
    """What rank 0 passed; None, text, numbers, bytes, and lists and dicts of them.

    Paddle sends it pickled, so the ranks must trust each other; no file is involved.
    """
    if COUNT == 1:
        return thing
    box = [thing]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def require_same(options, faces):
    """Raises UserError where the `options` (name → value, as typed) or `faces` (DataReader.facts) of rank 0 are others."""
    first_options, first_faces = from_first([options, faces])
    differing = [f"--{key.rstrip('_').replace('_', '-')}" for key in sorted(options) if options[key] != first_options[key]
                 and key not in ("data", "out")]  # folders may be named otherwise on another machine
    if not differing and faces != first_faces:
        differing = ["--data (other faces)"]
    if differing:
        raise UserError(f"rank {RANK} was started with another {', '.join(differing)} than rank 0; type the same command on "
                        "every machine, with the same packed faces")


def copy_from_first(path):
    """Gives every rank the file that rank 0 has at `path`, or none where it has none."""
    content = from_first(path.read_bytes() if RANK == 0 and path.exists() else None)
    if RANK > 0 and content is not None:
        path.write_bytes(content)


@paddle.no_grad()
def average(tensor):
    """Sets a tensor, in place, to its mean over the ranks; returns it."""
    if COUNT > 1:
        dist.all_reduce(tensor)
        tensor.scale_(1 / COUNT)
    return tensor


def average_statistics(*networks):
    """Sets the running batch-norm statistics of each network to their mean over the ranks."""
    for network in networks:
        for name, tensor in network.state_dict().items():
            if name.endswith(("._mean", "._variance")):
                average(tensor)


def agreed_signal(received, step):
    """The signal to stop at that any rank has received, or None, the same on all ranks.

    received  the numbers that this rank received
    step      on GPUs the ranks ask each other only every ASK_EVERY steps, because that waits for the GPU
    """
    if COUNT == 1:
        return received[0] if received else None
    if paddle.get_device() != "cpu" and step % ASK_EVERY:
        return None
    number = paddle.to_tensor([max(received, default=0)])
    dist.all_reduce(number, op=dist.ReduceOp.MAX)
    return int(number.numpy()[0]) or None
