"""train.py, which at its end also says how its time was spent: seconds until the first step, and seconds in bare steps.

    python -m benchmarks.train_timed [OPTIONS of train.py…]       (speed.py starts it)

A bare step is what Trainer.step computes, without waiting for the reader. (On a CPU Paddle computes at once, so that a
function's time is the work's time.)
"""
import time


def main():
    """The command: trains, with a clock around each step and each batch."""
    started = time.perf_counter()
    from support.cli import run_command

    import train

    spent = {"first": None, "steps": 0.0, "reader": 0.0}
    bare_step, batches = train.Trainer.step, train.DataReader.batches

    def timed_step(*arguments):
        spent["first"] = spent["first"] or time.perf_counter() - started
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

    train.Trainer.step, train.DataReader.batches = timed_step, timed_batches
    run_command(train.main)
    print("spent", spent["first"], spent["steps"])


if __name__ == "__main__":
    main()
