"""A web page for generators: faces from seeds, interpolations, variations, your own face, two generators side by side.

    python app.py                               # http://127.0.0.1:7860, with the weights of all runs and the pretrained ones
    python app.py Output/best.safetensors Output-2/best.safetensors     # with these weights
    python app.py --host 0.0.0.0                # for others in the network too

The address of the page names the faces that it shows: the same address shows the same faces again.
"""
from support.cli import Parser, UserError, number, printable, run_command, stop_signals

import argparse
import ipaddress
import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import paddle

from support.device import choose_device
from support.pages import MAX_FACES, MAX_WAITING, WIDE, seed
from support.words import LANGUAGES, WORDS
from training.checkpoint import load_generator
from training.weights import PRETRAINED, RUN, best_of, describe_generator, find_generator, weights_path

paddle.disable_signal_handler()  # Paddle's own prints a C++ traceback
try:
    import gradio as gr

    from support.answers import MAX_MOVE, MIN_TRUNCATION, MOVES, Page
    from support.browser import CHOOSE, REMEMBER
    from support.serving import build_server, listen
except ImportError as error:
    gr, MISSING = None, str(error)  # main() says so, after --help


def find_weights(paths):
    """The generators that the page offers, by name: (generator, facts). Those of `paths`, or of each run and the pretrained one.

    Without `paths` a file that cannot be used is skipped, with a line that says why. Raises UserError where no generator is left.
    """
    named, found = bool(paths), {}
    if not named:
        with suppress(UserError):  # a file that cannot be used is skipped below
            paths = [find_generator()]
        paths = [path for path in (*paths, *map(best_of, sorted(Path().glob(f"{RUN}*"))), PRETRAINED) if path.exists()]
    for path in dict.fromkeys(Path(path).resolve() for path in paths):
        try:
            generator, facts = load_generator(path)
        except UserError as error:
            if named:
                raise
            print(f"skipped: {printable(error)}")
            continue
        print(f"{printable(path)}: {describe_generator(facts)}")
        name = f"{path.parent.name}/{path.stem}"
        found[name if name not in found else str(path)] = generator, facts
    if not found:
        raise UserError("no usable weights were found; train.py writes some, or name a file")
    return found


def build(found, folder):
    """The page for the generators that `find_weights` found, and its texts. It writes into `folder`."""
    page = Page({name: generator for name, (generator, _) in found.items()}, folder)
    choices = [(f"{name} · {facts['size']} px · {facts['images_seen']:,}", name) for name, (_, facts) in found.items()]
    words = gr.I18n(**{language: dict(zip(WORDS, said)) for language, said in zip(LANGUAGES, zip(*WORDS.values()))})

    def number(key, value):
        return gr.Number(value, precision=0, minimum=0, label=words(key), elem_id=key)

    def gallery(key):
        return gr.Gallery(show_label=False, allow_preview=False, buttons=[], elem_id=key, elem_classes="gallery")

    def slider(key, minimum, maximum, value, step=0.05):
        return gr.Slider(minimum, maximum, value, step=step, label=words(key), min_width=WIDE, elem_id=key)

    with gr.Blocks(title="Faces from noise", delete_cache=(60, 600), analytics_enabled=False) as blocks:
        gr.Markdown(words("title"))
        with gr.Row():
            weights = gr.Dropdown(choices, value=choices[0][1], label=words("weights"), elem_id="weights", min_width=WIDE)
            truncation = slider("truncation", MIN_TRUNCATION, 1, 1)
        with gr.Accordion(words("attributes"), open=len(page.attributes) < 6, visible=False) as switches, gr.Row():
            labels = [gr.Radio([("?", ""), ("+", "+"), ("–", "-")], value="", label=name) for name in page.attributes]
        with gr.Tabs() as tabs:
            with gr.Tab(words("faces")):
                with gr.Row():
                    first = number("first", 0)
                    count = slider("count", 1, MAX_FACES, 16, step=1)
                    again = gr.Button(words("again"), variant="primary", elem_id="again")
                gr.Markdown(words("picked"))
                faces = gallery("faces")
                save = gr.DownloadButton(words("save"), elem_id="save")
            with gr.Tab(words("walk")):
                with gr.Row():
                    start, end = number("start", 0), number("end", 1)
                film = gr.Image(show_label=False, type="filepath", format="gif", buttons=["download"], elem_id="walk")
            with gr.Tab(words("vary")):
                with gr.Row():
                    which = number("which", 0)
                    strength = slider("strength", 0, 1, 0.6)
                    more = gr.Button(words("more"), variant="primary", elem_id="more")
                variations = gallery("vary")
            with gr.Tab(words("face")):
                gr.Markdown(words("private"))
                with gr.Row():
                    upload = gr.Button(words("upload"), variant="primary", elem_id="upload")
                    mine, to = number("mine", 0), number("to", 1)
                photo, z = gr.Textbox(visible=False), gr.Textbox(visible=False)
                with gr.Row():
                    moves = [slider(name, -MAX_MOVE, MAX_MOVE, 0, step=0.5) for name in MOVES]
                with gr.Row():
                    gr.HTML(elem_id="photo")
                    changed = gallery("changed")
                    journey = gr.Image(show_label=False, type="filepath", format="gif", buttons=["download"], elem_id="journey")
            with gr.Tab(words("compare"), visible=len(choices) > 1):
                other = gr.Dropdown(choices, value=choices[-1][1], label=words("other"), elem_id="other")
                with gr.Row():
                    sides = [gallery("side1"), gallery("side2")]
        view, direction = gr.State("faces"), gr.State(0)

        def draw(view, other, start, end, which, direction, strength, to, weights, first, count, truncation, mine, z, *others):
            """The output of the open tab."""
            moves, labels = others[:len(MOVES)], others[len(MOVES):]
            if view == "face":
                return dict(zip((changed, journey), page.change(weights, mine, z, moves, to, truncation, labels)))
            if view == "walk":
                return {film: page.walk(weights, start, end, truncation, labels)}
            if view == "vary":
                return {variations: page.vary(weights, which, direction, strength, truncation, labels)}
            if view == "compare":
                return {side: page.faces(name, first, count, truncation, labels) for side, name in zip(sides, (weights, other))}
            drawn = page.faces(weights, first, count, truncation, labels)
            return {faces: drawn, save: page.picture(drawn)}

        def open_tab(tab: gr.SelectData):
            return ("faces", "walk", "vary", "face", "compare")[tab.index]

        def pick(place: gr.SelectData, end):
            """The clicked face becomes the end of the interpolation, and the old end its start."""
            return seed(end), seed(place.value["caption"]), seed(place.value["caption"])

        def switch(name):
            """Shows the attributes that the generator has."""
            known = page.generator(name).plan.labels
            radios = {label: gr.Radio(visible=label.label in known) for label in labels}
            return {switches: gr.Accordion(visible=bool(known)), **radios}

        shown = [weights, first, count, truncation, mine, z, *moves, *labels]
        drawing = {"fn": draw, "js": REMEMBER, "outputs": [faces, save, film, variations, changed, journey, *sides],
                   "inputs": [view, other, start, end, which, direction, strength, to, *shown],
                   "concurrency_limit": 1, "trigger_mode": "always_last", "preprocess": False}  # `Page` bounds all values
        gr.on([*(part.input for part in (first, start, end, which, to, weights, other, *labels)),
               *(part.release for part in (truncation, count, strength, *moves))], **drawing)
        mine.input(lambda: "", None, z).then(**drawing)
        upload.click(page.find, [weights, photo], z, js=CHOOSE, concurrency_limit=1).then(**drawing)
        again.click(lambda: int(np.random.default_rng().integers(10 ** 6)), None, first).then(**drawing)
        more.click(lambda number: number + 1, direction, direction).then(**drawing)
        tabs.select(open_tab, None, view).then(**drawing)
        faces.select(pick, end, [start, end, which], preprocess=False, trigger_mode="multiple")
        weights.input(switch, weights, [switches, *labels], preprocess=False)
        blocks.load(page.asked_for, None, shown).then(switch, weights, [switches, *labels], preprocess=False).then(**drawing)
    return blocks.queue(max_size=MAX_WAITING, api_open=False), words


def root_path(text):
    """An argparse type: where a proxy offers the page, as a path or a whole address."""
    if not re.fullmatch(r"(https?://[\w.:-]+)?(/[\w.~%@:+-]+)+/?", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"expected a path like /proxy/7860, or an address that ends in one, not {text[:40]!r}")
    return text.rstrip("/")


def build_parser():
    """The parser of the command's options."""
    parser = Parser(__doc__, "[FILE ...] [options]")
    add = parser.add_argument
    add("weights", nargs="*", type=weights_path, metavar="FILE", help="weights that train.py saved, or names of pretrained ones "
        "(default: all runs' and the pretrained ones)")
    add("--host", default="127.0.0.1", help="the address to listen at; 0.0.0.0: all addresses of this machine")
    add("--port", type=number(int, 1, 65535), default=7860, help="the port to listen at")
    add("--root-path", type=root_path, metavar="PATH",
        help="behind a proxy: the path, or the whole address, at which it offers the page")
    add("--device", choices=("auto", "cpu", "gpu"), default="auto", help="auto: a GPU where there is one")
    return parser


def main():
    """The command: loads the generators and serves the page until it is stopped."""
    options = build_parser().parse_args()
    if not gr:
        raise UserError(f"app.py needs packages that are not installed ({MISSING}); type: pip install -r requirements-app.txt")
    with suppress(ImportError, ValueError, OSError):  # as many connections as the system allows
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with listen(options.host, options.port) as listener:
        choose_device(options.device)
        found = find_weights(options.weights)
        with tempfile.TemporaryDirectory(prefix="faces-") as folder, stop_signals(patient=True) as signals:
            os.environ["GRADIO_TEMP_DIR"] = folder + "/served"
            server = build_server(*build(found, folder), options.root_path)
            address = ipaddress.ip_address(listener.getsockname()[0])
            if not address.is_loopback:
                print("warning: everybody in the network can use this page; it has no password")
            host = "localhost" if address.is_unspecified else f"[{address}]" if address.version == 6 else address
            print(f"the page: http://{host}:{options.port} (Ctrl-C ends it)")
            if not signals:
                server.run(sockets=[listener])


if __name__ == "__main__":
    run_command(main)
