import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pretreat
import train
from intake import builtin, photos, sources
from intake.sources import BUILTIN
from network import draw_faces
from pictures import colours, encoded, picture, zipped
from support import figures, files
from training.checkpoint import load_generator
from training.randomness import face_inputs
from training.weights import PRETRAINED

ROOT = Path(pretreat.__file__).parent


def packed(folder):
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return np.load(folder / "faces.npy"), manifest


def hostile_files():
    jpeg, png, gif = (encoded(colours(178, 218), kind) for kind in ("jpeg", "png", "gif"))
    bad = {f"cut{tenth}.{kind}": data[:len(data) * tenth // 10]
           for kind, data in (("jpg", jpeg), ("png", png), ("gif", gif), ("webp", encoded(colours(178, 218), "webp")),
                              ("bmp", encoded(colours(178, 218), "bmp")), ("tif", encoded(colours(178, 218), "tiff")))
           for tenth in range(1, 10)}
    for name, options in (("plain", {}), ("exif", {"exif": Image.Exif()}), ("cmyk", {})):
        if name == "exif":
            options["exif"][0x0112] = 6
        data = encoded(colours(178, 218).convert("CMYK" if name == "cmyk" else "RGB"), "jpeg", **options)
        middle = len(data) // 2
        bad[f"mended_{name}.jpg"] = data[:middle] + b"\xff\xd9"  # half a picture that ends as a whole one does
        bad[f"damaged_{name}.jpg"] = data[:middle] + np.random.default_rng(0).bytes(400) + data[middle + 400:]
    bad |= {"empty.jpg": b"", "text.jpg": b"no picture\n" * 99, "tiny.png": encoded(Image.new("RGB", (1, 1))),
            "bomb.png": encoded(Image.new("1", (30000, 30000)))}
    return bad


def test_unreadable_pictures_are_listed_and_the_others_kept(tmp_path, command):
    photos = tmp_path / "photos"
    (photos / "人脸 'a' \"b\"").mkdir(parents=True)
    (photos / "__MACOSX").mkdir()
    good = ["人脸 'a' \"b\"/笑 1.JPG", "one.jpeg", "two.png"]
    for number, name in enumerate(good + ["__MACOSX/one.jpeg", ".hidden.png"]):
        colours(178, 218).save(photos / name, "jpeg", comment=bytes([number]))  # equal files would count once
    (photos / "notes.txt").write_text("not a picture, and not named like one")
    bad = hostile_files()
    for name, data in bad.items():
        (photos / name).write_bytes(data)

    result = command(pretreat, "--input", photos, "--out", tmp_path / "imgs")

    faces, manifest = packed(tmp_path / "imgs")
    assert result.status == 0 and f"kept 3, skipped {len(bad)}: see" in result.out
    assert sorted(manifest["names"]) == sorted(good) and len(faces) == manifest["count"] == 3
    assert {entry["name"] for entry in manifest["skipped"]} == set(bad) and all(entry["reason"] for entry in manifest["skipped"])
    assert len(np.unique(faces.reshape(3, -1), axis=0)) == 1 and faces.std() > 30  # three times the same whole picture


def test_zip_files_are_read_in_place(tmp_path, command, monkeypatch):
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("b/2.png", "a/脸.png", "__MACOSX/a/1.png", "a/.1.png", "locked.png"):
            file.writestr(name, encoded(colours(30, 30)) + name.encode())
        file.writestr(zipfile.ZipInfo("gbk.png"), encoded(colours(30, 30)))
    data = archive.read_bytes().replace(b"gbk", "脸x".encode("gbk"))  # as an old Chinese Windows would name it
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # say of one entry that it is encrypted
        at = [i for i in range(len(data)) if data.startswith(mark, i) and b"locked" in data[i:i + 60]][-1]
        data = data[:at + flags] + bytes([data[at + flags] | 1]) + data[at + flags + 1:]
    archive.write_bytes(data)

    assert command(pretreat, "--input", archive, "--out", tmp_path / "imgs").status == 0
    _, manifest = packed(tmp_path / "imgs")
    assert manifest["names"] == ["b/2.png", "a/脸.png", "脸x.png"]
    assert manifest["skipped"] == [{"name": "locked.png", "reason": "encrypted in the .zip file"}]
    assert sorted(os.listdir(tmp_path)) == ["imgs", "photos.zip"]


def test_faces_keep_the_order_of_the_input_across_threads(tmp_path, command, monkeypatch):
    monkeypatch.setattr(pretreat, "CHUNK", 3)
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(40):
        (photos / f"{i:02d}.png").write_bytes(b"" if i % 9 == 4 else encoded(Image.new("L", (300 - 7 * i, 300 - 7 * i), i)))
    command(pretreat, "--input", photos, "--out", tmp_path / "imgs", "--size", 16, "--workers", 8, "--limit", 39)
    faces, manifest = packed(tmp_path / "imgs")
    kept = [i for i in range(39) if i % 9 != 4]
    assert manifest["names"] == [f"{i:02d}.png" for i in kept]
    assert faces[:, 8, 8, 0].tolist() == kept


def test_a_picture_stays_held_out_when_others_are_added(tmp_path, command):
    photos = tmp_path / "photos"
    photos.mkdir()

    def held_out(names):
        for name in names:
            (photos / name).write_bytes(encoded(Image.new("L", (8, 8))) + name.encode())  # all look alike, none is equal
        command(pretreat, "--input", photos, "--out", tmp_path / "imgs", "--size", 8, "--holdout", 0.2)
        _, manifest = packed(tmp_path / "imgs")
        return {manifest["names"][row] for row in manifest["held_out"]}

    few = [f"m{i}.png" for i in range(100)]
    before = held_out(few)
    after = held_out([f"a{i}.png" for i in range(200)])
    assert 10 <= len(before) <= 30 and after & set(few) == before and 40 <= len(after) <= 80


def test_without_photos_the_built_in_faces_are_taken(tmp_path, command, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(builtin, "COUNT", 30)
    result = command(pretreat)
    faces, manifest = packed(tmp_path / "imgs")
    assert result.status == 0 and "no photos" in result.out and faces.shape == (30, 64, 64, 3)
    pretrained, _ = load_generator(PRETRAINED)
    assert (faces[7] == draw_faces(pretrained, face_inputs(pretrained.plan, [7]))[0]).all()
    assert manifest["sources"] == [BUILTIN] and Image.open(tmp_path / "imgs" / "preview.png").size == (640, 192)


MOUNTS = ("home/data/data39207", "home/data/datasets/39207/celeba", "jobs/39207/CelebA/Img")


@pytest.fixture(params=MOUNTS)
def mount(request, tmp_path, monkeypatch):
    """A folder in which AI Studio mounts a data set; with a folder beside it that nobody may look into."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sources, "JOBS", tmp_path / "jobs")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    folder = tmp_path / request.param
    folder.mkdir(parents=True)
    (folder.parent / "broken").symlink_to(tmp_path / "nowhere")
    return folder


@pytest.mark.parametrize("out, command", [
    ("imgs", "python train.py"), ("imgs-mine", "python train.py --data imgs-mine --out Output-mine"),
    ("/data/imgs", "python train.py --data /data/imgs"), ("a b/x y", "python train.py --data 'a b/x y' --out 'Output-x y'")])
def test_what_to_type_next(out, command):
    """Faces in another folder than imgs get a run of their own, beside Output; those from photos start with trained weights."""
    assert pretreat.next_command(Path(out), photos.Crop("auto"), 64) == command
    with_start = command.replace("train.py", "train.py --from celeba64")
    assert all(pretreat.next_command(Path(out), photos.Crop("face"), size) == with_start for size in (64, 128))
    assert pretreat.next_command(Path(out), photos.Crop("face"), 96) == command  # networks do not grow to 96 px


def test_celeba_is_found_here_first_and_then_among_the_mounts(mount):
    assert sources.find_input() == []
    deeper = mount / "img_align_celeba" / "img_align_celeba"
    deeper.mkdir(parents=True)
    assert sources.find_input() == []  # there is nothing in it
    (deeper / "000001.jpg").touch()
    assert sources.find_input() == [deeper]
    (mount / "img_align_celeba" / "000001.jpg").touch()
    assert sources.find_input() == [deeper.parent]
    (mount / "img_align_celeba.zip").touch()
    assert sources.find_input() == [mount / "img_align_celeba.zip"]
    Path("img_align_celeba.zip").touch()
    assert sources.find_input() == [Path("img_align_celeba.zip")]


def test_a_mounted_data_set_is_packed_again_in_each_session_and_the_run_resumes(mount, command):
    """The home folder is small: packed faces are in another place, which the end of the session empties."""
    result = command(pretreat, "--attributes")
    assert result.status == 2 and "list_attr_celeba.txt" in result.err
    names = [f"{number:06d}.jpg" for number in range(40)]
    with zipfile.ZipFile(mount / "img_align_celeba.zip", "w") as archive:
        for number, name in enumerate(names):
            archive.writestr(f"img_align_celeba/{name}", encoded(colours(178, 218 + number), "jpeg"))
    (mount / "list_attr_celeba.txt").write_text("40\nMale\n" + "".join(f"{name} 1\n" for name in names))
    for steps in (1, 2):
        packing = command(pretreat, "--attributes", "--size", 16, "--out", "imgs-session")
        assert packing.status == 0 and str(mount / "img_align_celeba.zip") in packing.out
        training = command(train, "--device", "cpu", "--data", "imgs-session", "--out", "Output", "--channels", 2,
                           "--steps", steps)
        assert training.status == 0, training.err
        shutil.rmtree("imgs-session")
    assert "resumes at step 1 of 2" in training.out


@pytest.mark.parametrize("arguments, words", [
    (["--input", "nowhere"], ["nowhere", "no such folder"]),
    (["--input", "text.zip"], ["text.zip", "neither a folder nor a readable .zip"]),
    (["--input", "damaged.zip"], ["damaged.zip", ".zip file"]),
    (["--input", "empty"], ["empty", "no pictures"]),
    (["--input", "broken"], ["none of the 1 pictures", "a.png", "empty file"]),
    (["--out", "mine"], ["mine", "diary.txt", "folder of its own"]),
    (["--size", "big"], ["--size", "whole number", "'big'"]),
    (["--holdout", "1"], ["--holdout", "below 1"]),
])
def test_bad_input_gets_a_sentence(tmp_path, command, monkeypatch, arguments, words):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "broken", "mine"):
        Path(folder).mkdir()
    Path("text.zip").write_text("text")
    with zipfile.ZipFile("damaged.zip", "w") as archive:
        archive.writestr("a.png", "a")
    Path("damaged.zip").write_bytes(Path("damaged.zip").read_bytes().replace(b"PK\x01\x02", b"PK\x07\x07"))
    Path("broken/a.png").touch()
    Path("mine/diary.txt").write_text("dear")
    result = command(pretreat, *arguments)
    assert result.status == 2 and result.err.count("\n") == 1 and all(word in result.err for word in words)
    assert not Path("imgs").exists() and not Path("imgs.partial").exists() and Path("mine/diary.txt").exists()


@pytest.mark.parametrize("module, writer", [(pretreat, "flush"), (figures, "save_picture")])
def test_a_full_disk_leaves_the_old_data_set(tmp_path, command, monkeypatch, faces16, module, writer):
    before = {path.name: path.read_bytes() for path in faces16.iterdir()}
    monkeypatch.setenv("HOME", str(tmp_path))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, writer, full)
    result = command(pretreat, "--limit", 9, "--out", faces16)
    assert result.status == 1 and "disk is full" in result.err
    assert {path.name: path.read_bytes() for path in faces16.iterdir()} == before
    assert os.listdir(faces16.parent) == ["imgs"]


def test_a_box_is_of_so_many_px_of_the_photo(tmp_path, command):
    """Also where the JPEG is decoded smaller than it is."""
    (tmp_path / "photos").mkdir()
    colours(1600, 1200).save(tmp_path / "photos" / "a.jpg", quality=95)
    colours(1600, 700).save(tmp_path / "photos" / "low.png")
    result = command(pretreat, "--input", tmp_path / "photos", "--out", tmp_path / "imgs", "--crop", "center", "--box", 800)
    [face], manifest = packed(tmp_path / "imgs")
    assert result.status == 0 and manifest["crop"] == "center 800"
    assert manifest["skipped"] == [{"name": "low.png", "reason": "smaller than --box 800"}]
    expected = np.asarray(colours(1600, 1200).crop((400, 200, 1200, 1000)).resize((64, 64), Image.BILINEAR)).astype(int)
    assert abs(face.astype(int) - expected).max() <= 4


@pytest.mark.parametrize("arguments, said", [(("--box", 100), "--crop center"), (("--margin", 5), "--crop face"),
                                             (("--crop", "celeba", "--box", 100), "--crop center"),
                                             (("--attributes", "--crop", "face"), "--attributes goes"),
                                             (("--download", "--input", "x.zip"), "--input"),
                                             (("--url", "http://127.0.0.1/x.zip"), "--download")])
def test_options_that_do_not_go_together(tmp_path, command, arguments, said):
    result = command(pretreat, "--out", tmp_path / "imgs", *arguments)
    assert result.status == 2 and said in result.err and not (tmp_path / "imgs").exists()


def test_celeba_is_fetched_where_it_is_not_there(tmp_path, command, monkeypatch, server):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(tmp_path / "celeba.zip", "w") as archive:
        archive.writestr("img_align_celeba/000001.jpg", encoded(colours(178, 218), "jpeg"))
    server.content = (tmp_path / "celeba.zip").read_bytes()
    result = command(pretreat, "--download", "--url", server.url + "/other.zip")
    assert result.status == 1 and "another one than" in result.err and "--url" in result.err
    assert not list(tmp_path.glob("*img*")), "a file with another checksum must not stay"
    monkeypatch.setattr(pretreat, "CELEBA_MD5", hashlib.md5(server.content).hexdigest())
    for _ in range(2):  # the second time it is there
        assert command(pretreat, "--download", "--url", server.url + "/celeba.zip").status == 0
    assert len(server.asked) == 2 and packed(tmp_path / "imgs")[1]["names"] == ["img_align_celeba/000001.jpg"]
    (tmp_path / "img_align_celeba.zip").write_bytes(b"something else")
    result = command(pretreat, "--download", "--url", server.url + "/celeba.zip")
    assert result.status == 2 and "not CelebA's archive" in result.err


def test_pictures_in_flight_are_bounded(monkeypatch):
    decoded = []
    monkeypatch.setattr(pretreat, "cut_faces", lambda _, size, crop: decoded.append(1) or
                        ([np.zeros((size, size, 3), np.uint8)], [0], []))
    pictures = [sources.Picture("a.png", bytes)] * 100 * pretreat.CHUNK
    chunks = pretreat.decode_all(pictures, 8, photos.Crop(), workers=2)
    next(chunks)
    time.sleep(0.2)  # nobody takes the next one; the threads must come to rest
    assert len(decoded) <= 6 * pretreat.CHUNK
    assert sum(map(len, chunks)) == 99 * pretreat.CHUNK


def test_two_at_once_do_not_mix(tmp_path, command, monkeypatch, faces16):
    monkeypatch.setenv("HOME", str(tmp_path))
    (faces16.parent / "imgs.partial").mkdir()
    with files.claim(faces16.parent / "imgs.partial"):
        result = command(pretreat, "--limit", 9, "--out", faces16)
    assert result.status == 2 and "another command is writing" in result.err
    (faces16.parent / "imgs.partial" / "diary.txt").touch()  # not ours: the next one must not delete it either
    result = command(pretreat, "--limit", 9, "--out", faces16)
    assert result.status == 2 and "diary.txt" in result.err and (faces16.parent / "imgs.partial" / "diary.txt").exists()
    shutil.rmtree(faces16.parent / "imgs.partial")


def test_a_killed_run_leaves_the_old_data_set_or_the_new_one(tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "imgs"
    photos.mkdir()
    for i in range(300):
        (photos / f"{i}.png").write_bytes(encoded(colours(100, 100)) + bytes([i // 256, i % 256]))
    small = [sys.executable, ROOT / "pretreat.py", "--input", photos, "--out", out, "--limit", "5"]
    subprocess.run(small, check=True, capture_output=True)
    began = time.monotonic()
    subprocess.run(small[:-2], check=True, capture_output=True)
    whole = time.monotonic() - began
    subprocess.run(small, check=True, capture_output=True)
    for share in (0.5, 0.7, 0.8, 0.9, 1.0):
        running = subprocess.Popen(small[:-2], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(share * whole)
        running.send_signal(signal.SIGKILL)
        running.wait()
        faces, manifest = packed(out)
        assert len(faces) == manifest["count"] in (5, 300)
    subprocess.run(small, check=True, capture_output=True)
    assert len(packed(out)[0]) == 5 and sorted(os.listdir(tmp_path)) == ["imgs", "photos"]


def test_packed_faces_are_not_taken_as_photos(tmp_path, command):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(picture())
    arguments = ("--size", 8, "--holdout", 0)
    assert command(pretreat, "--input", tmp_path / "photos", "--out", tmp_path / "photos" / "imgs", *arguments).status == 0
    before = (tmp_path / "photos" / "imgs" / "manifest.json").read_bytes()
    for source, out in (("photos", "photos/imgs"), ("photos/imgs", "photos/imgs"), ("photos", "others")):
        result = command(pretreat, "--input", tmp_path / source, "--out", tmp_path / out, *arguments)
        assert result.status == 2 and "holds packed faces of pretreat.py" in result.err, result.out
    assert (tmp_path / "photos" / "imgs" / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("content", [
    {"preview.png": b"mine"}, {"manifest.json": b"{}"}, {"manifest.json": b"mine", "faces.npy": b"mine"},
    {"labels.npy": b"1"}, {".writing-faces.npy": b"1"}])
def test_files_of_the_user_that_are_named_like_ours_stay(tmp_path, command, content):
    (tmp_path / "imgs").mkdir()
    for name, data in content.items():
        (tmp_path / "imgs" / name).write_bytes(data)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(picture())
    result = command(pretreat, "--input", tmp_path / "photos", "--out", tmp_path / "imgs", "--size", 8)
    assert result.status == 2 and "folder of its own" in result.err
    assert {path.name: path.read_bytes() for path in (tmp_path / "imgs").iterdir()} == content


def test_links_in_place_of_our_files_are_not_followed(tmp_path, command):
    """A folder from others may hold links to files of the user under the names of ours."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("mine")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(picture())
    for link in ("imgs.partial", "imgs"):
        (tmp_path / link).symlink_to(tmp_path / "precious")
        result = command(pretreat, "--input", tmp_path / "photos", "--out", tmp_path / "imgs", "--size", 8)
        assert result.status == 2 and ("a link" in result.err or "other files" in result.err)
        (tmp_path / link).unlink()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "imgs").symlink_to(tmp_path / "elsewhere")  # the user's own, to another disk, say
    assert command(pretreat, "--input", tmp_path / "photos", "--out", tmp_path / "imgs", "--size", 8).status == 0
    assert (tmp_path / "imgs").is_symlink() and (tmp_path / "elsewhere" / "faces.npy").exists()
    (tmp_path / ".writing-a.txt").symlink_to(tmp_path / "precious" / "thesis.txt")
    with files.replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "mine" and (tmp_path / "a.txt").read_text() == "new"


def test_files_that_a_killed_process_left_are_deleted(tmp_path, command):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(picture())
    partial = tmp_path / "imgs.partial"
    partial.mkdir()
    (partial / ".unfinished").touch()
    for name in ("labels.npy", ".writing-preview.png", "faces.npy"):
        (partial / name).write_bytes(b"old")
    assert command(pretreat, "--input", tmp_path / "photos", "--out", tmp_path / "imgs", "--size", 8).status == 0
    assert sorted(os.listdir(tmp_path / "imgs")) == ["faces.npy", "manifest.json", "preview.png"]
    assert sorted(os.listdir(tmp_path)) == ["imgs", "photos"]


def test_the_same_photo_counts_once(tmp_path, command):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(picture(1))
    zipped(tmp_path / "b.zip", ("c.png", picture(1)), ("d.png", picture(2)))
    result = command(pretreat, "--input", tmp_path / "photos", tmp_path / "b.zip", "--out", tmp_path / "imgs", "--size", 8)
    manifest = json.loads((tmp_path / "imgs" / "manifest.json").read_text())
    assert result.status == 0 and manifest["names"] == ["a.png", "d.png"]
    again = command(pretreat, "--input", tmp_path / "b.zip", tmp_path / "b.zip", "--out", tmp_path / "imgs", "--size", 8)
    assert "kept 2, skipped 0" in again.out
    assert manifest["skipped"] == [{"name": "c.png", "reason": "the same file as a.png"}]


def test_pictures_that_cannot_be_read_here_are_listed(tmp_path, command, monkeypatch):
    (tmp_path / "photos").mkdir()
    heic = b"\x00\x00\x00\x18ftypheic" + bytes(100)
    for name, data in {"a.png": picture(), "b.heic": heic, "c.CR2": b"II*\x00", "d.psd": b"8BPS", "e.txt": b"text"}.items():
        (tmp_path / "photos" / name).write_bytes(data)
    monkeypatch.setattr(photos, "FORMATS", [kind for kind in photos.FORMATS if kind != "HEIF"])
    result = command(pretreat, "--input", tmp_path / "photos", "--out", tmp_path / "imgs", "--size", 8)
    manifest = json.loads((tmp_path / "imgs" / "manifest.json").read_text())
    skipped = {entry["name"]: entry["reason"] for entry in manifest["skipped"]}
    assert "kept 1, skipped 3" in result.out and set(skipped) == {"b.heic", "c.CR2", "d.psd"}
    assert "pillow-heif" in skipped["b.heic"]


def test_a_name_is_printed_without_control_characters(tmp_path, command):
    path = zipped(tmp_path / "a.zip", ("a\x1b[2J\n.png", b"no picture"))
    result = command(pretreat, "--input", path, "--out", tmp_path / "imgs")
    assert result.status == 2 and "\x1b" not in result.err and result.err.count("\n") == 1 and "a\\x1b[2J\\n.png" in result.err


def test_the_pixels_are_in_the_fingerprint(tmp_path, command):
    """Other pictures under the same names are another data set."""
    from dataReader import DataReader

    (tmp_path / "photos").mkdir()
    found = set()
    for number in (1, 2):
        (tmp_path / "photos" / "a.png").write_bytes(picture(number))
        packing = command(pretreat, "--input", tmp_path / "photos", "--out", tmp_path / "imgs", "--size", 8, "--holdout", 0)
        assert packing.status == 0
        found.add(DataReader(tmp_path / "imgs", 1).fingerprint())
    assert len(found) == 2
