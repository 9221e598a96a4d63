import os

from test_checkpoint import FACTS
from training import checkpoint, weights
from zoo import Plan, build_generator


def test_a_generator_is_found_where_there_are_faces(tmp_path, monkeypatch, capsys):
    """The best of the runs that have seen enough; a run of noise is passed over, and named."""
    monkeypatch.chdir(tmp_path)

    def save(folder, images, face_fd=None, name="best"):
        path = tmp_path / folder / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        scores = {} if face_fd is None else {"face_fd": face_fd, "n": 100}
        made = build_generator(Plan(size=16, z_dim=8, channels=4))
        checkpoint.save_generator(path, made, {**FACTS, "images_seen": images, "scores": scores})

    save("Output", 800)
    assert weights.find_generator() == weights.PRETRAINED
    said = capsys.readouterr().out
    assert "Output has seen 800 images" in said and "--weights Output/best.safetensors" in said
    assert "the pretrained generator" in said
    save("Output-builtin", 50_000, 5)
    assert weights.find_generator() == weights.PRETRAINED
    save("Output-2", 16_000, 30, "generator")
    assert str(weights.find_generator()) == "Output-2/generator.safetensors"
    save("Output-3", 16_000, 20)
    save("Output-2", 16_000, 30)
    assert str(weights.find_generator()) == "Output-3/best.safetensors" and "the best of your 2 runs" in capsys.readouterr().out
    save("Output-4", 16_000)
    os.utime("Output-4/best.safetensors", (2**32, 2**32))
    assert str(weights.find_generator()) == "Output-4/best.safetensors" and "the newest of your 3 runs" in capsys.readouterr().out
