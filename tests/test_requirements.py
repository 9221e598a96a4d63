import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


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
