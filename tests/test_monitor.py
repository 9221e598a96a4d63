import io
import json
from types import SimpleNamespace

import numpy as np
import paddle
import pytest

from training import monitor
from training.randomness import draws


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def quiet_monitor(folder, start_step=0, suspicions=None):
    said = []
    watching = monitor.Monitor(folder, start_step, 1000, 10, 4, certain=(0.95, 0.05), suspicions=suspicions)
    watching.warn = said.append
    return watching, said


def test_a_status_line_is_the_mean_since_the_one_before(tmp_path):
    watching, _ = quiet_monitor(tmp_path)
    for value in (1, 2, 3):
        watching.record(*[paddle.to_tensor(float(value))] * 4)
        watching.log({}) if value == 1 else watching.save_losses()
    watching.log({})
    assert [line["d_loss"] for line in log(tmp_path)] == [1, 2.5]


def test_a_discriminator_that_always_wins_earns_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(monitor, "LOG_EVERY", 2)
    watching, said = quiet_monitor(tmp_path)
    for d_real in [0.75] * 10 + [0.99] * 5 + [0.9] + [0.99] * 12:  # the good steps first, and a doubt later
        if watching.step == 13:  # an interruption
            watching.save_losses()
            watching, said = quiet_monitor(tmp_path, 13)
        watching.record(*map(paddle.to_tensor, (0.1, 5.0, d_real, 0.01)))
        if watching.step % 2 == 0:
            watching.log({})
        assert len(said) == (watching.step >= 20)  # again only at step 30
    assert "--lr" in said[0]


def faces_of(seed):
    """A hundred faces that are one, but for their light: as bright and as contrasted as chance has it."""
    face = draws(seed, "test face").integers(0, 256, (1, 16, 16, 3))
    return (face * draws(seed, "test light").uniform(0.2, 1, (100, 1, 1, 1))).astype(np.uint8)


def test_faces_that_are_all_alike_earn_a_warning(tmp_path):
    varied = draws(0, "test").integers(0, 256, (100, 16, 16, 3), dtype=np.uint8)
    reals, suspicions, warned = SimpleNamespace(similarity=0.2), {}, []
    for line in range(12):  # lines 3 to 11 are of a collapse that changes its face; at line 5 it seems to be over
        watching, said = quiet_monitor(tmp_path, 100 * line, suspicions)  # interrupted after each line
        watching.judge_variety(varied if line < 3 or line == 5 else faces_of(line), reals)
        suspicions = watching.suspicions
        warned += [line] * len(said)
    assert warned == [9]


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


SOUND = npy(np.ones((10, 4), np.float32))
LOSSES = {"sound": SOUND, "empty": b"", "junk": bytes(range(256)) * 9, "text": b"0.1 0.2 0.3 0.4\n" * 9, "magic alone": SOUND[:6],
          "cut in its header": SOUND[:40], "no rows where ten are promised": SOUND[:128], "cut short": SOUND[:-3],
          "another version": SOUND[:6] + b"\x09" + SOUND[7:], "no dict for a header": SOUND[:10] + b"(" * 118 + SOUND[128:],
          "terabytes promised": SOUND.replace(b"(10, 4)", b"(10000000000000, 4)").replace(b" " * 12, b"", 1),
          "float64": npy(np.ones((10, 4))),
          "integers": npy(np.ones((10, 4), np.int32)), "big-endian": npy(np.ones((10, 4), ">f4")),
          "complex": npy(np.ones((10, 4), np.complex64)), "objects": npy(np.full((10, 4), None)),
          "text in an array": npy(np.full((10, 4), "x")), "records": npy(np.ones(10, [("d_loss", "f4")])),
          "one row": npy(np.ones(4, np.float32)), "a single number": npy(np.float32(1)),
          "five columns": npy(np.ones((10, 5), np.float32)),
          "three axes": npy(np.ones((10, 4, 1), np.float32)), "infinite": npy(np.full((10, 4), np.inf, np.float32)),
          "a zip": b"PK\x03\x04" + SOUND}
LINES = [b'{"step": null}', b'{"step": "2"}', b'{"step": true}', b'{"step": 2.0}', b'{"step": NaN}', b'{"step": [2]}',
         b'{"Step": 2}',
         b"null", b"2", b'"step"', b"[2]", b"", b"{", b"\xff\xfe\x00", b'{"step": 2, "d_loss": "\xff"}', b"[" * 100_000,
         b'{"step": ' + b"9" * 5000 + b"}", b'{"step": 4}']


@pytest.mark.parametrize("damage", LOSSES)
def test_damaged_curves_and_logs_do_not_stop_a_run(tmp_path, capsys, damage):
    (tmp_path / "losses.npy").write_bytes(LOSSES[damage])
    (tmp_path / "log.jsonl").write_bytes(b"\n".join([b'{"step": 1}', *LINES, b'{"step": 3}', b'{"step": 3']))
    watching, _ = quiet_monitor(tmp_path, 3)
    assert [line["step"] for line in log(tmp_path)] == [1, 3]
    assert capsys.readouterr().out.count("losses.npy could not be read") == (damage != "sound")
    watching.record(*map(paddle.to_tensor, (0.5, 0.5, 0.5, 0.5)))
    watching.save_losses()
    before = [[1] * 4] * 3 if damage == "sound" else [[np.nan] * 4] * 3
    assert np.array_equal(np.load(tmp_path / "losses.npy"), np.float32([*before, [0.5] * 4]), equal_nan=True)
