"""The web page that AI Studio hosts: faces from seeds, and interpolations from one face to another, in Chinese and English.

    python faces.gradio.py                      # http://127.0.0.1:7860, with the pretrained generator, on the CPU

AI Studio runs a file whose name ends in .gradio.py, with Gradio 4, 5 or 6. Gradio's own environment variables, such as
GRADIO_SERVER_PORT, set the address. app.py is a page with more functions, for Gradio 6.
"""
from support.cli import run_command

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import paddle

from network import draw_faces
from support.device import choose_device
from support.pages import CSS, MAX_FACES, MAX_WAITING, WIDE, enlarged, save_walk, seed, seeds_from
from training.checkpoint import load_generator
from training.randomness import face_inputs
from training.weights import PRETRAINED

paddle.disable_signal_handler()  # Paddle's own prints a C++ traceback
try:
    import gradio as gr
except ImportError as error:
    raise SystemExit(f"faces.gradio.py needs Gradio ({error}); type: pip install -r requirements-hosting.txt") from None

TITLE = """# 从噪声生成人脸 · Faces from noise
这些人都不存在。一个种子对应一张脸：同一个种子，得到的总是同一张脸。仅限非商业研究。<br>
None of these people exists. The same seed always gives the same face. For non-commercial research only."""
# Fonts of the browser: those of Gradio 4 and 5 come from Google's servers, and the page would wait for them.
LOOK = {"css": CSS, "theme": gr.themes.Default(font=["sans-serif"], font_mono=["monospace"])}
OF_BLOCKS, OF_LAUNCH = (LOOK, {}) if int(gr.__version__.split(".")[0]) < 6 else ({}, LOOK)


def draw(generator, first, count):
    """A gallery of the faces of seeds in a row, with their seeds."""
    seeds = seeds_from(first, count)
    return list(zip(enlarged(draw_faces(generator, face_inputs(generator.plan, seeds))), map(str, seeds)))


def walk(generator, folder, start, end):
    """An interpolation from one seed to another and back: the path of a .gif file in `folder`.

    Each has the same name, for Gradio copies the file before the next is drawn.
    """
    path = Path(folder) / "walk.gif"
    save_walk(path, generator, *face_inputs(generator.plan, [seed(start), seed(end)]))
    return str(path)


def build(generator, folder):
    """The page, of elements that Gradio 4, 5 and 6 all have. It writes into `folder`."""
    with gr.Blocks(title="从噪声生成人脸 · Faces from noise", delete_cache=(60, 600), analytics_enabled=False,
                   **OF_BLOCKS) as page:
        gr.Markdown(TITLE)
        with gr.Tab("人脸 · Faces"):
            with gr.Row():
                first = gr.Number(0, precision=0, minimum=0, label="起始种子 · First seed", elem_id="first")
                count = gr.Slider(1, MAX_FACES, 16, step=1, label="人脸数量 · How many", min_width=WIDE, elem_id="count")
                again = gr.Button("换一批 · Other faces", variant="primary", elem_id="again")
            faces = gr.Gallery(show_label=False, format="png", elem_id="faces", elem_classes="gallery")
        with gr.Tab("插值 · Interpolation") as tab:
            with gr.Row():
                start = gr.Number(0, precision=0, minimum=0, label="起点 · From seed", elem_id="start")
                end = gr.Number(1, precision=0, minimum=0, label="终点 · To seed", elem_id="end")
            film = gr.Image(show_label=False, type="filepath", elem_id="film")
        # support/pages.py bounds all values, so that no number is an error. The generator draws for one visitor at a time.
        how = {"preprocess": False, "trigger_mode": "always_last", "concurrency_id": "generator", "concurrency_limit": 1}
        gr.on([page.load, first.change, count.release], partial(draw, generator), [first, count], faces, api_name="faces", **how)
        gr.on([tab.select, start.change, end.change], partial(walk, generator, folder), [start, end], film, api_name="film",
              **how)
        again.click(lambda: int(np.random.default_rng().integers(10 ** 6)), None, first)
    return page.queue(max_size=MAX_WAITING, api_open=False)


def main():
    """Serves the page until it is stopped."""
    choose_device("cpu")
    generator, _ = load_generator(PRETRAINED)
    with tempfile.TemporaryDirectory(prefix="faces-") as folder:
        build(generator, folder).launch(share=False, max_file_size="1b", **OF_LAUNCH)


if __name__ == "__main__":
    run_command(main)
