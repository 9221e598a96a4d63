"""A web page for generators: faces from seeds, interpolations, variations, your own face, two generators side by side.

    python app.py                               # http://127.0.0.1:7860, with the weights of all runs and the pretrained ones
    python app.py Output/best.safetensors Output-2/best.safetensors     # with these weights
    python app.py --host 0.0.0.0                # for others in the network too

The address of the page names the generator and the seeds of the faces, or the z of yours: whoever opens it sees the same faces.
"""
from support.cli import Parser, UserError, number, printable, run_command, stop_signals

import argparse
import ipaddress
import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle

from support.device import choose_device
from support.pages import MAX_FACES, MAX_WAITING, WIDE, seed
from support.words import LANGUAGES, WORDS
from training.checkpoint import load_generator
from training.weights import RUN, best_of, describe_generator, find_generator, pretrained, weights_path

paddle.disable_signal_handler()  # Paddle's own prints a C++ traceback
try:
    import gradio as gr

    from support.answers import MAX_MOVE, MIN_TRUNCATION, MOVES, Page
    from support.browser import CHOOSE, REMEMBER
    from support.serving import build_server, listen
except ImportError as error:
    gr, MISSING = None, str(error)  # main() says so, after --help


def find_weights(paths):
    """The generators that the page offers, by name: (generator, facts). Those of `paths`, or of each run and the pretrained ones.

    Without `paths` a file that cannot be used is skipped, with a line that says why. Raises UserError where no generator is left.
    """
    named, found = bool(paths), {}
    if not named:
        with suppress(UserError):  # a file that cannot be used is skipped below
            paths = [find_generator("python app.py")]
        paths = [path for path in (*paths, *map(best_of, sorted(Path().glob(f"{RUN}*")))) if path.exists()] + pretrained()
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


def lay_out(words, choices, attributes):
    """Makes the parts of the page, and gives them by name.

    words       gives the text of a key
    choices     the generators: (text, name)
    attributes  names of those that at least one generator can be asked for
    """
    def number(key, value):
        return gr.Number(value, precision=0, minimum=0, label=words(key), elem_id=key)

    def slider(key, minimum, maximum, value, step=0.05):
        return gr.Slider(minimum, maximum, value, step=step, label=words(key), min_width=WIDE, elem_id=key)

    def button(key):
        return gr.Button(words(key), variant="primary", elem_id=key)

    def gallery(key):
        return gr.Gallery(show_label=False, allow_preview=False, buttons=[], elem_id=key, elem_classes="gallery")

    def film(key):
        return gr.Image(show_label=False, type="filepath", format="gif", buttons=["download"], elem_id=key)

    # What is behind the visible parts, on the server: `last` is the value of `end`, which the page itself knows later.
    on = SimpleNamespace(view=gr.State("faces"), direction=gr.State(0), last=gr.State(1))
    gr.Markdown(words("title"))
    with gr.Row():
        on.weights = gr.Dropdown(choices, value=choices[0][1], label=words("weights"), elem_id="weights", min_width=WIDE)
        on.truncation = slider("truncation", MIN_TRUNCATION, 1, 1)
    with gr.Accordion(words("attributes"), open=len(attributes) < 6, visible=False) as on.switches, gr.Row():
        on.labels = [gr.Radio([("?", ""), ("+", "+"), ("–", "-")], value="", label=name) for name in attributes]
    with gr.Tabs() as on.tabs:
        with gr.Tab(words("faces")):
            with gr.Row():
                on.first, on.count, on.again = number("first", 0), slider("count", 1, MAX_FACES, 16, step=1), button("again")
            gr.Markdown(words("picked"))
            on.faces = gallery("faces")
            on.save = gr.DownloadButton(words("save"), elem_id="save")
        with gr.Tab(words("walk")):
            with gr.Row():
                on.start, on.end = number("start", 0), number("end", 1)
            on.walk = film("walk")
        with gr.Tab(words("vary")):
            with gr.Row():
                on.which, on.strength, on.more = number("which", 0), slider("strength", 0, 1, 0.6), button("more")
            on.variations = gallery("vary")
        with gr.Tab(words("face")):
            gr.Markdown(words("private"))
            with gr.Row():
                on.upload, on.mine, on.to = button("upload"), number("mine", 0), number("to", 1)
            on.photo, on.z = gr.Textbox(visible=False), gr.Textbox(visible=False)
            with gr.Row():
                on.moves = [slider(name, -MAX_MOVE, MAX_MOVE, 0, step=0.5) for name in MOVES]
            with gr.Row():
                gr.HTML(elem_id="photo")
                on.changed, on.journey = gallery("changed"), film("journey")
        with gr.Tab(words("compare"), visible=len(choices) > 1):
            on.other = gr.Dropdown(choices, value=choices[-1][1], label=words("other"), elem_id="other")
            with gr.Row():
                on.sides = [gallery("side1"), gallery("side2")]
    return on


def connect(page, on, blocks):
    """Says what happens when a visitor touches the parts that are `on` the page."""
    def draw(view, other, start, end, which, direction, strength, to, weights, first, count, truncation, mine, z, *others):
        """The output of the open tab."""
        moves, labels = others[:len(MOVES)], others[len(MOVES):]
        if view == "face":
            return dict(zip((on.changed, on.journey), page.change(weights, mine, z, moves, to, truncation, labels)))
        if view == "walk":
            return {on.walk: page.walk(weights, start, end, truncation, labels)}
        if view == "vary":
            return {on.variations: page.vary(weights, which, direction, strength, truncation, labels)}
        if view == "compare":
            return {side: page.faces(name, first, count, truncation, labels) for side, name in zip(on.sides, (weights, other))}
        drawn = page.faces(weights, first, count, truncation, labels)
        return {on.faces: drawn, on.save: page.picture(drawn)}

    def open_tab(tab: gr.SelectData):
        return ("faces", "walk", "vary", "face", "compare")[tab.index]

    def pick(place: gr.SelectData, before):
        """The clicked face becomes the end of the interpolation, and the old end its start."""
        picked = seed(place.value["caption"])
        return before, picked, picked, picked

    def switch(name):
        """Shows the attributes that the generator has."""
        known = page.generator(name).plan.labels
        radios = {label: gr.Radio(visible=label.label in known) for label in on.labels}
        return {on.switches: gr.Accordion(visible=bool(known)), **radios}

    shown = [on.weights, on.first, on.count, on.truncation, on.mine, on.z, *on.moves, *on.labels]
    drawing = {"fn": draw, "js": REMEMBER, "concurrency_limit": 1, "trigger_mode": "always_last",
               "inputs": [on.view, on.other, on.start, on.end, on.which, on.direction, on.strength, on.to, *shown],
               "outputs": [on.faces, on.save, on.walk, on.variations, on.changed, on.journey, *on.sides],
               "preprocess": False}  # `Page` bounds all values
    switching = {"fn": switch, "inputs": on.weights, "outputs": [on.switches, *on.labels], "preprocess": False,
                 "trigger_mode": "always_last"}
    gr.on([*(part.input for part in (on.first, on.start, on.end, on.which, on.to, on.other, *on.labels)),
           *(part.release for part in (on.truncation, on.count, on.strength, *on.moves))], **drawing)
    # A z belongs to a photo and to the generator that it was found for.
    gr.on([on.mine.input, on.weights.input], lambda: "", None, on.z, trigger_mode="always_last").then(**drawing)
    on.upload.click(page.find, [on.weights, on.photo], on.z, js=CHOOSE, concurrency_limit=1).then(**drawing)
    on.again.click(lambda: int(np.random.default_rng().integers(10 ** 6)), None, on.first).then(**drawing)
    on.more.click(lambda number: number + 1, on.direction, on.direction).then(**drawing)
    on.tabs.select(open_tab, None, on.view).then(**drawing)
    on.end.input(seed, on.end, on.last, preprocess=False, trigger_mode="always_last")
    on.faces.select(pick, on.last, [on.start, on.end, on.which, on.last], preprocess=False, trigger_mode="multiple")
    on.weights.input(**switching)
    blocks.load(page.asked_for, None, shown).then(**switching).then(**drawing)


def build(found, folder):
    """The page for the generators that `find_weights` found, and its texts. It writes into `folder`."""
    page = Page({name: generator for name, (generator, _) in found.items()}, folder)
    choices = [(f"{name} · {facts['size']} px · {facts['images_seen']:,}", name) for name, (_, facts) in found.items()]
    words = gr.I18n(**{language: dict(zip(WORDS, said)) for language, said in zip(LANGUAGES, zip(*WORDS.values()))})
    with gr.Blocks(title="Faces from noise", delete_cache=(60, 600), analytics_enabled=False) as blocks:
        connect(page, lay_out(words, choices, page.attributes), blocks)
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
