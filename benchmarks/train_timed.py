"""train.py, which at its end also says how its time was spent: seconds until the first step, and seconds in bare steps.

A bare step is what train_step computes, without waiting for the reader. (On a CPU Paddle computes at once, so that a
function's time is the work's time.)
"""
import time

STARTED = time.perf_counter()

import sys  # noqa: E402
from pathlib import Path  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent.parent))
import runtime  # noqa: E402, I001
import train  # noqa: E402

spent = {"first": None, "steps": 0.0, "reader": 0.0}
bare_step, batches = train.train_step, train.DataReader.batches


def timed_step(*arguments):
    spent["first"] = spent["first"] or time.perf_counter() - STARTED
    before, waited = time.perf_counter(), spent["reader"]
    result = bare_step(*arguments)
    spent["steps"] += time.perf_counter() - before - (spent["reader"] - waited)
    return result


def timed_batches(reader, start):
    faces = batches(reader, start)
    while True:
        before = time.perf_counter()
        batch = next(faces)
        spent["reader"] += time.perf_counter() - before
        yield batch


train.train_step, train.DataReader.batches = timed_step, timed_batches
runtime.run_command(train.main)
print("spent", spent["first"], spent["steps"])
