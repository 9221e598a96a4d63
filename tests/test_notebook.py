"""The notebook, run from top to bottom as on AI Studio: with a mounted data set in either place, and with none."""
import io
import os
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import lfw_subset

nbclient = pytest.importorskip("nbclient", reason="pip install nbclient ipykernel")
pytest.importorskip("ipykernel")
import nbformat

ROOT = Path(__file__).parent.parent
PARTS = ("pretrained", "intake", "training", "latent", "scoring", "support")


def mount(folder):
    """A data set with thirty pictures of CelebA's proportions."""
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
        for number, face in enumerate(lfw_subset()[:30]):
            file = io.BytesIO()
            Image.fromarray(np.uint8(face * 255)).resize((178, 218)).save(file, "jpeg")
            archive.writestr(f"img_align_celeba/{number:06d}.jpg", file.getvalue())


@pytest.mark.parametrize("place", ["data/data39207", "data/datasets/39207/celeba", None])
def test_three_cells_lead_to_faces(tmp_path, monkeypatch, place):
    home, work = tmp_path / "home", tmp_path / "home" / "work" / "faces"
    work.mkdir(parents=True)
    for path in (*ROOT.glob("*.py"), *ROOT.glob("requirements*.txt"), *map(ROOT.joinpath, PARTS)):
        (shutil.copytree if path.is_dir() else shutil.copy)(path, work / path.name)
    if place:
        mount(home / place)
    notebook = nbformat.read(ROOT / "aistudio.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) == 3 and "STEPS = 10_000" in cells[0].source
    cells[0].source = cells[0].source.replace("STEPS = 10_000", "STEPS = 3").replace("!pip install", "!pip --version #")
    cells[1].source = cells[1].source.replace("train.py", "train.py --device cpu --channels 4")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(work)}}).execute()
    for cell in cells:
        assert sum("image/png" in output.get("data", {}) for output in cell.outputs) >= 1, cell.outputs
    text = "".join(output.get("text", "") for cell in cells for output in cell.outputs)
    assert ("30" if place else "2,000") + " pictures" in text and "done:" in text and "16 faces" in text and "Error" not in text
    assert (home / "data" / "imgs" / "faces.npy").exists() and not (work / "imgs").exists()
    assert (work / ("Output" if place else "Output-builtin") / "checkpoint.safetensors").exists()
