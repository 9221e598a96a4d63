"""Files from strangers, and damaged ones: each is one sentence, takes no memory, and changes nothing."""
from support.cli import UserError

import json
import os
import resource
import struct
from dataclasses import asdict

import numpy as np
import paddle
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

import generator
import train
from recipe import defaults
from training import checkpoint
from training.players import build_players, networks_and_adams
from zoo import Plan, build_generator

FACTS = {"arch": "dcgan", "size": 16, "z_dim": 8, "channels": 4, "up": "deconv", "noise": "normal", "labels": {}, "where": "",
         "pictures": "aa", "step": 1500, "images_seen": 96000, "data": "9 faces from a.zip", "seed": 0,
         "scores": {"swd": 9.5, "n": 50}}
RECIPE = defaults(z_dim=8, channels=4, up="deconv")
OPTIONS = {**asdict(RECIPE), "labels": {}}
ODD = {  # what is no number of anything, as JSON
    "text": "one", "negative": "-1", "huge": "1" + "0" * 30, "too large": "5000000", "fraction": "1.5", "null": "null",
    "empty": "", "list": "[1]", "object": "{}", "true": "true", "NaN": "NaN", "infinite": "1e999", "script": "__import__('os')",
    "line": "1\n2"}
ODD_LABELS = [
    "null", "1", "[]", '"Smiling"', '{"Smiling": 1}', '{"Smiling": []}', '{"Smiling": [0]}', '{"Smiling": ["1"]}',
    '{"Smiling": [1.5]}', '{"Smiling": [[1]]}', '{"Smiling": null}', '{"": [1]}', '{" ": [1]}', '{"a\\nimport os": [1]}',
    '{"a\\r": [1]}', '{"a\\u001b[2J": [1]}', '{"a\\u202eb": [1]}', '{"a#b": [1]}', '{"a\\"b": [1]}', '{"a{b}": [1]}',
    '{"$x^$": [1]}', '{"' + "a" * 50 + '": [1]}', '{"a/b": [1]}', '{"A": [1], "B": [1, -1]}', '{"A": [1]',
    '{"A": ' + "[" * 5000 + "]" * 5000 + "}", '{"A": [' + "1," * 2000 + "1]}", "\\", "\x00"]
ODD_SCORES = ["null", "[]", '{"swd": "best"}', '{"swd": null}', '{"swd": NaN}', '{"swd": 1e999}', '{"swd": [1]}', "1",
              '{"swd": true}']


def strange_metadata():
    """(what is strange, metadata) of a generator's file."""
    good = {key: json.dumps(value) if key in ("scores", "labels") else str(value) for key, value in FACTS.items()}
    for key in ("size", "z_dim", "channels", "step", "images_seen", "seed"):
        for what, value in ODD.items():
            if not (what == "too large" and key in ("step", "images_seen", "seed")):
                yield f"{key} {what}", {**good, key: value}
        yield f"{key} lacks", {name: value for name, value in good.items() if name != key}
    for key in ("arch", "up", "noise"):
        for value in ("", "dcgan\n", "../dcgan", "DCGAN", "null"):
            if (key, value) != ("up", ""):
                yield f"{key} {value!r}", {**good, key: value}
    for value in ODD_LABELS:
        yield f"labels {value[:30]!r}", {**good, "labels": value}
    for value in ODD_SCORES:
        yield f"scores {value!r}", {**good, "scores": value}
    for arch, size in (("dcgan", 48), ("dcgan28", 64), ("fakeface128", 64), ("upsample48", 16)):
        yield f"{arch} {size}", {**good, "arch": arch, "size": str(size), "up": "deconv" if arch == "dcgan" else ""}
    for changes in ({"channels": "4096"}, {"size": "256", "channels": "4096", "z_dim": "10000"}, {"z_dim": "10000"},
                    {"up": "resize"}, {"up": ""}, {"arch": "tanh-upsample64", "size": "64", "channels": "4096", "up": ""},
                    {"data": "a" * 5000}):
        yield f"{changes}"[:40], {**good, **changes}
    yield "nothing", {}


def strange_tensors(good):
    """(what is strange, arrays): types, shapes and numbers that the network does not have."""
    name = "deconv1.weight"
    for kind in (np.float64, np.int8, np.int64, np.uint8, np.bool_):
        yield kind.__name__, {**good, name: good[name].astype(kind)}
    for shape in ((-1,), (1, *good[name].shape), good[name].T.shape):
        yield f"shape {shape}", {**good, name: np.ascontiguousarray(good[name].reshape(shape))}
    for number in (np.nan, np.inf, -np.inf):
        yield f"{number}", {**good, name: np.where(good[name] > 0.03, np.float32(number), good[name])}
    yield "empty", {**good, name: np.empty((0,), np.float32)}
    yield "lacks", {key: array for key, array in good.items() if key != name}
    yield "none", {"other": good[name]}


def write(path, arrays, metadata, kind=None):
    """As safetensors.numpy.save_file does, but with any JSON `metadata`, and the first tensor said to be of another `kind`."""
    header, data = {"__metadata__": metadata}, b""
    for name, array in arrays.items():
        kinds = {"float32": "F32", "float64": "F64", "int8": "I8", "int64": "I64", "uint8": "U8", "bool": "BOOL",
                 "float16": "F16"}
        header[name] = {"dtype": kind or kinds[array.dtype.name], "shape": list(array.shape),
                        "data_offsets": [len(data), len(data) + array.nbytes]}
        data, kind = data + array.tobytes(), None
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "generator.safetensors"
    checkpoint.save_generator(path, build_generator(Plan(size=16, z_dim=8, channels=4)), FACTS)
    return path


def metadata_of(path):
    with safe_open(path, "numpy") as file:
        return file.metadata()


def refusals(path, cases, load):
    """Writes each case to `path` and loads it. Returns those that were not refused in one sentence that names the file."""
    wrong = []
    for what, make in cases:
        make()
        try:
            load()
            wrong.append(f"{what}: loaded")
        except UserError as error:
            if str(path) not in str(error) or len(str(error)) > 2000:
                wrong.append(f"{what}: {error}")
    return wrong


def test_strange_generators_are_refused_before_they_take_memory(weights, tmp_path):
    path, good = tmp_path / "w.safetensors", load_file(weights)
    original = metadata_of(weights)
    content = weights.read_bytes()
    cases = [(what, lambda metadata=metadata: write(path, good, metadata)) for what, metadata in strange_metadata()]
    cases += [(what, lambda arrays=arrays: write(path, arrays, original)) for what, arrays in strange_tensors(good)]
    cases += [(kind, lambda kind=kind: write(path, good, original, kind))
              for kind in ("BF16", "I32", "U32", "F8_E4M3", "C64", "X")]
    cases += [(f"metadata {value!r}", lambda value=value: write(path, good, value))
              for value in (None, 1, [], {"size": 16}, "text")]
    cases += [(f"cut at {length}", lambda length=length: path.write_bytes(content[:length]))
              for length in (0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1)]
    cases += [(f"checksums {value}", lambda value=value: write(path, good, {**original, "checksums": value}))
              for value in ("", "[]", "1", '{"deconv1.weight": 5}', '{"deconv1.weight": "00"}')]
    assert len(cases) >= 180
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert not refusals(path, cases, lambda: checkpoint.load_generator(path))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_a_flipped_bit_is_a_sentence_and_not_another_face(weights, tmp_path):
    path, content = tmp_path / "w.safetensors", bytearray(weights.read_bytes())
    start = 8 + struct.unpack("<Q", content[:8])[0]
    cases = []
    for place in np.linspace(start, len(content) - 1, 60).astype(int):
        changed = content.copy()
        changed[place] ^= 1 << place % 8
        cases.append((f"byte {place}", lambda changed=changed: path.write_bytes(changed)))
    assert not refusals(path, cases, lambda: checkpoint.load_generator(path))


def test_the_file_that_was_written_loads_and_a_packed_one_does(weights, tmp_path):
    made, facts = checkpoint.load_generator(weights)
    assert facts == {"from_": "", **FACTS}
    older = {key: value for key, value in metadata_of(weights).items() if key != "checksums"}
    write(tmp_path / "older.safetensors", {name: array.astype(np.float16) for name, array in load_file(weights).items()}, older)
    again, _ = checkpoint.load_generator(tmp_path / "older.safetensors")
    assert np.allclose(again.deconv1.weight.numpy(), made.deconv1.weight.numpy(), atol=1e-3)


def test_what_is_no_file_is_named_for_what_it_is(weights, tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(UserError, match="not a file"):
            checkpoint.load_generator(tmp_path / f"{name}.safetensors")

    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(checkpoint, "open", refuse, raising=False)
    with pytest.raises(UserError, match="cannot be read .Permission denied"):
        checkpoint.load_generator(weights)


def test_text_from_a_file_cannot_steer_the_terminal(tmp_path, command):
    path = tmp_path / "w.safetensors"
    made = build_generator(Plan(size=16, z_dim=8, channels=4))
    good = {name: tensor.numpy() for name, tensor in made.state_dict().items()}
    metadata = {key: json.dumps(value) if key in ("scores", "labels") else str(value) for key, value in FACTS.items()}
    write(path, good, {**metadata, "data": "a\x1b[2J\nweights: yours\r\u202e", "where": "\x07"})
    result = command(generator, "--weights", path, "--out", tmp_path / "out", "--device", "cpu")
    assert result.status == 0 and "a\\x1b[2J\\nweights" in result.out and not set("\x1b\r\u202e\x07") & set(result.out)
    write(path, good, {**metadata, "arch": "\x1b[2J"})
    result = command(generator, "--weights", path)
    assert result.status == 2 and "\x1b" not in result.err and result.err.count("\n") == 1


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A saved run: its path, its networks and optimisers."""
    players = build_players(RECIPE, 16)
    networks, adams = networks_and_adams(players)
    for name, adam in adams.items():
        loss = networks[name](paddle.rand([4, 8] if name == "generator" else [4, 3, 16, 16])).sum()
        loss.backward()
        adam.step()
    path = tmp_path_factory.mktemp("run") / "checkpoint.safetensors"
    checkpoint.save_run(path, networks, adams, {"step": 7, "images_seen": 70, "seconds": 1.5, "options": OPTIONS})
    return path, networks, adams


def strange_runs():
    """(what is strange, the text of a run's facts)."""
    good = {"step": 7, "images_seen": 70, "seconds": 1.5, "options": OPTIONS}
    for value in ("", "null", "[]", "{}", "1", '"run"', "{", "\x00", "[" * 5000, '{"step": 7}', '{"options": {}}', "NaN"):
        yield f"{value[:20]!r}", value
    for key in ("step", "seconds"):
        for what, value in ODD.items():
            if (key, what) not in (("step", "too large"), ("seconds", "too large"), ("seconds", "fraction"), ("seconds", "huge")):
                text = json.dumps({**good, key: "HERE"}).replace('"HERE"', value or '""')
                yield f"{key} {what}", text
        yield f"{key} lacks", json.dumps({name: value for name, value in good.items() if name != key})
    for key, values in {"arch": ("", "x", None, 1), "channels": (0, -1, 10**9, "4", 1.5, None), "loss": ("x", 1, None),
                        "labels": (None, 1, [], {"a\nb": [1]}, {"a": [2]}, {"a": 1})}.items():
        for value in values:
            yield f"{key} {value!r}", json.dumps({**good, "options": {**OPTIONS, key: value}})
    yield "options of a list", json.dumps({**good, "options": []})
    for value in (1, [], {"won": "x"}, {"won": -1}, None):
        yield f"suspicions {value}", json.dumps({**good, "suspicions": value})


def test_a_hundred_strange_runs_are_refused(run, tmp_path):
    original, networks, adams = run
    path, good, metadata, content = tmp_path / "c.safetensors", load_file(original), metadata_of(original), original.read_bytes()
    cases = [(what, lambda text=text: write(path, good, {**metadata, "run": text})) for what, text in strange_runs()]
    cases.append(("no facts", lambda: write(path, good, {})))
    for name in ("adam.generator.deconv1.weight.moment1_0", "adam.discriminator.discriminators.0.conv1.weight.beta1_pow_acc_0",
                 "average.bn1._mean"):
        for what, array in {"longer": np.append(good[name], np.float32(0)), "wider": good[name][None], "NaN": good[name] * np.nan,
                            "F64": good[name].astype(np.float64), "flipped": good[name] + np.float32(1e-7)}.items():
            cases.append((f"{name} {what}", lambda name=name, array=array: write(path, {**good, name: array}, metadata)))
        cases.append((f"{name} lacks", lambda name=name: write(path, {key: good[key] for key in good if key != name}, metadata)))
    cases += [(f"cut at {length}", lambda length=length: path.write_bytes(content[:length]))
              for length in np.linspace(0, len(content) - 1, 20).astype(int)]
    assert len(cases) >= 100

    def load():
        assert checkpoint.read_facts(path) is not None
        checkpoint.load_run(path, networks, adams)

    before = {name: tensor.numpy().copy() for name, tensor in networks["average"].state_dict().items()}
    assert not refusals(path, cases, load)
    assert all((before[name] == tensor.numpy()).all() for name, tensor in networks["average"].state_dict().items())


def test_a_damaged_run_is_neither_started_over_nor_lost(command, faces16, tmp_path):
    arguments = ("--data", faces16, "--out", tmp_path, "--device", "cpu", "--channels", 4, "--z-dim", 8, "--batch", 32)
    assert command(train, *arguments, "--steps", 1).status == 0
    path = tmp_path / "checkpoint.safetensors"
    write(path, load_file(path), {"run": "null"})
    damaged = path.read_bytes()
    result = command(train, *arguments, "--steps", 2)
    assert result.status == 2 and str(path) in result.err and "--fresh" in result.err and result.err.count("\n") == 1
    assert path.read_bytes() == damaged
