"""The notebook, run from top to bottom on the built-in faces."""
import os
import shutil
import sys
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient", reason="pip install nbclient ipykernel")
pytest.importorskip("ipykernel")
import nbformat  # noqa: E402

ROOT = Path(__file__).parent.parent


def test_three_cells_lead_to_faces(tmp_path, monkeypatch):
    for path in (*ROOT.glob("*.py"), *(ROOT / name for name in ("pretrained", "training", "intake", "support"))):
        (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / path.name)
    notebook = nbformat.read(ROOT / "aistudio.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) == 3 and "STEPS = 10_000" in cells[0].source
    cells[0].source = cells[0].source.replace("STEPS = 10_000", "STEPS = 3").replace("!pip install -q -r requirements.txt\n", "")
    cells[1].source = cells[1].source.replace("train.py", "train.py --device cpu --channels 4")
    monkeypatch.setenv("HOME", str(tmp_path))  # no data set is mounted there
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    for cell in cells:
        assert sum("image/png" in output.get("data", {}) for output in cell.outputs) >= 1, cell.outputs
    text = "".join(output.get("text", "") for cell in cells for output in cell.outputs)
    assert "100 pictures" in text and "done:" in text and "16 faces" in text and "Error" not in text
