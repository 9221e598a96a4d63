from support.cli import UserError

import io
import itertools
import json
import sys

import numpy as np
import psutil
import pytest

import dataReader
from dataReader import DataReader


@pytest.fixture
def numbered(tmp_path):
    """20 faces of 4 px; face i is i everywhere but for its left column, which is 200 + i; 3 and 11 are held out."""
    faces = np.empty((20, 4, 4, 3), np.uint8)
    faces[:] = np.arange(20).reshape(20, 1, 1, 1)
    faces[:, :, 0] += 200
    np.save(tmp_path / "faces.npy", faces)
    facts = {"size": 4, "crop": "auto", "sources": ["a"], "names": [f"{i}.png" for i in range(20)], "held_out": [3, 11]}
    (tmp_path / "manifest.json").write_text(json.dumps(facts))
    return tmp_path


def numbers(reader, start=0, count=1):
    """Which faces the batches hold, from their middles."""
    batches = itertools.islice(reader.batches(start), count)
    return [np.round((batch[:, 0, 2, 2].numpy() + 1) * 127.5).astype(int).tolist() for batch, _ in batches]


def test_a_batch_is_float32_nchw_from_minus_one_to_one(numbered):
    faces = np.zeros((20, 4, 4, 3), np.uint8)
    faces[:, 0, 1] = (255, 51, 0)
    np.save(numbered / "faces.npy", faces)
    batch, labels = next(DataReader(numbered, 5).batches())
    assert labels is None
    assert batch.shape == [5, 3, 4, 4] and batch.numpy().dtype == np.float32
    assert batch[0, :, 0, 1].numpy() == pytest.approx([1, -0.6, -1], abs=1e-6)
    assert batch.max() <= 1 and batch.min() >= -1 and float(batch[0, :, 1, 1].max()) == -1


def test_each_epoch_is_a_new_order_of_all_training_faces(numbered):
    reader = DataReader(numbered, 6)
    first, second = numbers(reader, 0, 3), numbers(reader, 3, 3)
    training = sorted(set(range(20)) - {3, 11})
    assert sorted(sum(first, [])) == sorted(sum(second, [])) == training and first != second


def test_an_order_depends_on_the_seed_and_the_step_alone(numbered):
    whole = numbers(DataReader(numbered, 5, seed=7), 0, 12)
    assert numbers(DataReader(numbered, 5, seed=7), 8, 4) == whole[8:]
    assert numbers(DataReader(numbered, 5, seed=8), 0, 12) != whole


def test_splits(numbered):
    assert sorted(numbers(DataReader(numbered, 9, split="heldout"))[0]) == [3, 11]
    assert sorted(numbers(DataReader(numbered, 20, split="all"))[0]) == list(range(20))


def test_a_set_smaller_than_a_batch_gives_smaller_batches(numbered):
    reader = DataReader(numbered, 128)
    assert reader.batches_per_epoch == 1 and [len(batch) for batch in numbers(reader, 0, 3)] == [18] * 3


def test_the_ranks_share_out_each_batch(numbered):
    whole = numbers(DataReader(numbered, 6), 0, 4)
    shares = [numbers(DataReader(numbered, 6, rank=rank, ranks=3), 0, 4) for rank in range(3)]
    for step in range(4):
        assert sorted(sum((share[step] for share in shares), [])) == sorted(whole[step])
        assert all(len(share[step]) == 2 for share in shares)


def test_a_batch_that_the_ranks_cannot_share_out(numbered):
    with pytest.raises(UserError, match="--batch 17 cannot be divided evenly among 2 devices; use --batch 16"):
        DataReader(numbered, 17, rank=0, ranks=2)


def test_flips_mirror_about_half_the_faces_and_are_the_same_again(numbered):
    def flipped(**options):
        reader = DataReader(numbered, 18, flip=True, **options)
        faces = [reader.gather(step)[0] for step in range(20)]
        assert all(((face[:, 0, 0] >= 200) ^ (face[:, 0, -1] >= 200)).all() for face in faces)
        return np.concatenate([face[:, 0, -1, 0] >= 200 for face in faces])

    assert 0.4 < flipped().mean() < 0.6 and (flipped() == flipped()).all() and (flipped() != flipped(seed=1)).any()
    shares = [DataReader(numbered, 18, flip=True, rank=rank, ranks=2).gather(0)[0] for rank in range(2)]
    whole = DataReader(numbered, 18, flip=True).gather(0)[0]
    assert (whole[0::2] == shares[0]).all() and (whole[1::2] == shares[1]).all()


def test_a_folder_without_packed_faces_gets_a_sentence(numbered, tmp_path, command):
    result = command(dataReader, "--data", "nowhere")
    assert result.status == 2 and "nowhere" in result.err and "pretreat.py" in result.err
    np.save(numbered / "faces.npy", np.zeros((3, 4, 5), np.uint8))
    result = command(dataReader, "--data", numbered)
    assert result.status == 2 and "faces.npy" in result.err and "pretreat.py" in result.err
    (numbered / "faces.npy").write_bytes(b"")
    assert command(dataReader, "--data", numbered).status == 2


def strange_manifests():
    good = {"size": 4, "crop": "auto", "sources": ["a"], "names": [f"{i}.png" for i in range(20)], "held_out": [3, 11]}
    yield from (b"", b"{", b"[]", b"null", b"1", b"\xff\xfe\x00", b"[" * 5000, b'{"size": NaN}', b"{}")
    for key, values in {"size": ("64", -1, 0, 10**9, 1.5, None, []), "crop": (None, 1, ["auto"], "a" * 5000),
                        "sources": (None, "a", [None], [1], {"a": 1}), "names": (None, "a" * 20, [1] * 20, ["a"] * 19, {}),
                        "held_out": (None, [-1], [20], [1.5], ["3"], [10**30], 3, [None]), "digest": (1, None, ["a"]),
                        "attributes": (None, "Smiling", [""], ["a\nimport os"], ["\x1b[2J"], [1], ["a" * 50], ["$x^$"],
                                       [["a"]])}.items():
        for value in values:
            yield json.dumps({**good, key: value}).encode()
        if key not in ("attributes", "digest"):
            yield json.dumps({name: good[name] for name in good if name != key}).encode()


def npy(**changes):
    header = {"descr": "|u1", "fortran_order": False, "shape": (20, 4, 4, 3), **changes}
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + bytes(960)


def strange_faces():
    good = npy()
    yield from (b"", good[:50], good[:-1], b"PK\x03\x04", good.replace(b"\x01\x00", b"\x03\x00", 1))
    for shape in ((20, 4, 4), (20, 4, 5, 3), (20, 4, 4, 1), (2**40, 4, 4, 3), (2**70, 4, 4, 3), (-20, 4, 4, 3), (20, 0, 0, 3),
                  (25, 4, 4, 3)):
        yield npy(shape=shape)
    for kind in ("<f4", "|O", "|b1", "<u2"):
        yield npy(descr=kind)
    yield npy(fortran_order=True)  # whose faces would be scrambled
    for text in (b"__import__('os')", b"{'descr': |u1'", b"'" * 40, b"(" * 90, b"0" * 90, b"{'shape': 1L,", b"\x00" * 20):
        yield good[:10] + text + good[10 + len(text):]


def test_strange_data_sets_get_a_sentence(numbered):
    cases = [("manifest.json", content) for content in strange_manifests()]
    cases += [("faces.npy", content) for content in strange_faces()]
    labels = [np.ones((20, 2), np.int8), np.ones((19, 1), np.int8), np.ones((20, 1), np.int64), np.array([["a"]] * 20, object),
              np.full((20, 1), 7, np.int8), np.zeros((20, 1), np.int8), np.asfortranarray(np.ones((20, 1), np.int8)).T]
    cases += [("labels.npy", content) for content in (b"", b"junk", *map(saved, labels))]
    good = {path.name: path.read_bytes() for path in numbered.iterdir()}
    assert len(cases) >= 75
    wrong = []
    for name, content in cases:
        for path, before in good.items():
            (numbered / path).write_bytes(before)
        if name == "labels.npy":
            (numbered / "manifest.json").write_text(json.dumps({**json.loads(good["manifest.json"]), "attributes": ["Smiling"]}))
        (numbered / name).write_bytes(content)
        try:
            DataReader(numbered, 5, conditional="Smiling" if name == "labels.npy" else "")
            wrong.append((content[:200], "loaded"))
        except UserError as error:
            if name not in str(error) or "pretreat.py" not in str(error):
                wrong.append((content[:200], str(error)))
    assert not wrong


def saved(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_the_fingerprint_covers_names_and_pixels(numbered):
    """A set that was packed before there was a digest of the pixels keeps the fingerprint that runs were saved with."""
    before = DataReader(numbered, 5).fingerprint()
    assert before == "2f47e0f5a0dfdce0"
    facts = json.loads((numbered / "manifest.json").read_text())

    def fingerprint(**changes):
        (numbered / "manifest.json").write_text(json.dumps({**facts, **changes}))
        return DataReader(numbered, 5).fingerprint()

    assert fingerprint(digest="aa") != before and DataReader(numbered, 5).fingerprint(pixels=False) == before
    assert len({before, fingerprint(digest="aa"), fingerprint(digest="bb"), fingerprint(held_out=[3])}) == 4


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the memory of a mapping is given back on Linux")
def test_memory_stays_flat_however_large_the_set(tmp_path):
    count = 16384  # 201 MB
    with open(tmp_path / "faces.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (count, 64, 64, 3)})
        file.truncate(file.tell() + count * 64 * 64 * 3)
    facts = {"size": 64, "crop": "auto", "sources": ["a"], "names": ["a"] * count, "held_out": []}
    (tmp_path / "manifest.json").write_text(json.dumps(facts))
    reader = DataReader(tmp_path, 128)
    before = psutil.Process().memory_info().rss
    for step in range(reader.batches_per_epoch):
        reader.gather(step)
    assert psutil.Process().memory_info().rss - before < 40e6


def test_the_figure_of_training_images(faces16, tmp_path, command):
    result = command(dataReader, "--data", faces16, "--out", tmp_path)
    assert result.status == 2 and "ends in .png" in result.err
    result = command(dataReader, "--data", faces16, "--out", tmp_path / "new" / "figure.png")
    assert result.status == 0 and (tmp_path / "new" / "figure.png").stat().st_size > 10_000
