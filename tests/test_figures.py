
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from support import figures


def test_rows_beside_their_names_are_shown_pixel_for_pixel(tmp_path):
    faces = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
    figures.save_rows(tmp_path / "rows.png", {"a": faces[:3], "a long name": faces[3:]})
    picture = np.asarray(Image.open(tmp_path / "rows.png").convert("RGB")).astype(int)
    assert picture.shape[0] == 32
    assert abs(picture[:, -48:] - figures.grid(faces, columns=3)).max() <= 1  # some versions of matplotlib round
    assert (picture[:16, :-48] < 128).any() and (picture[16:, :-48] < 128).any()  # the names


def test_names_are_no_formulas_and_cannot_make_a_figure_endless(tmp_path):
    faces = np.zeros((2, 16, 16, 3), np.uint8)
    for name in ("$\\frac{$", "微笑", "long" * 1000):
        figures.save_rows(tmp_path / "rows.png", {name: faces})
        figures.save_titled_grids(tmp_path / "grids.png", {name: faces})
        assert Image.open(tmp_path / "rows.png").width < 1000


def test_the_curves_of_a_long_run_are_means_of_few_steps(tmp_path, monkeypatch):
    drawn, losses = [], np.random.default_rng(0).random((5001, 4), np.float32)
    monkeypatch.setattr(figures, "save_figure", lambda path, figure: drawn.append(figure))
    for steps in (5001, 3):
        figures.save_losses(tmp_path / "loss.png", losses[:steps], 100)
        steps_drawn, values = drawn[-1].axes[0].lines[0].get_xydata().T
        assert len(values) == min(steps, figures.MAX_POINTS) and 1 <= steps_drawn[0] < 3 and steps - 2 < steps_drawn[-1] <= steps
        assert values.mean() == pytest.approx(losses[:steps, 0].mean(), rel=0.01)


@pytest.mark.parametrize("values", [(11.8, 6.5, 64.5, 181), (0.02, -0.0004, 0.4, 0.05), (0, 0.99, 1.01, 0.7), (0, 0, 0, 0)])
def test_numbers_beside_bars_are_within_the_figure(values):
    figure = Figure(figsize=(2.3, 4))
    axes = figure.add_subplot()
    figures.draw_bars(axes, dict(zip("abcd", values)))
    figure.canvas.draw()
    frame, texts = axes.get_window_extent(), [text.get_window_extent() for text in axes.texts]
    assert [float(text.get_text().split()[0]) for text in axes.texts] == pytest.approx(values)
    assert all(frame.x0 <= text.x0 and text.x1 <= frame.x1 for text in texts)
    assert all(above.y0 > below.y1 for above, below in zip(texts, texts[1:]))
