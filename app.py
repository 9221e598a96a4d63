"""A web page for generators: faces from seeds, interpolations, variations, attributes, two generators side by side.

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

from network import draw_faces
from support import figures
from support.device import choose_device
from support.pages import MAX_FACES, MAX_SEED, MAX_WAITING, WIDE, bounded, enlarged, save_walk, seed, seeds_from
from training.checkpoint import load_generator
from training.randomness import LIMITS, between, draws, face_inputs
from training.weights import PRETRAINED, RUN, best_of, describe_generator, find_generator, weights_path

paddle.disable_signal_handler()  # Paddle's own prints a C++ traceback
try:
    import gradio as gr

    from support.serving import build_server, listen
except ImportError as error:
    gr, MISSING = None, str(error)  # main() says so, after --help

VARIATIONS = 8
MIN_TRUNCATION = 0.6  # with less, faces look blurred and alike
LANGUAGES = ("en", "zh-CN", "zh-TW")
WORDS = {  # the texts of the page, in these languages
    "title": ("# Faces from noise\nNone of these people exists. The same seed and generator always give the same face.",
              "# 从噪声生成人脸\n这些人都不存在。一个种子对应一张脸：同一个生成器、同一个种子，得到的总是同一张脸。",
              "# 從雜訊生成人臉\n這些人都不存在。一個種子對應一張臉：同一個生成器、同一個種子，得到的總是同一張臉。"),
    "weights": ("Generator · resolution · images seen in training",
                "生成器 · 分辨率 · 训练时看过的图片数", "生成器 · 解析度 · 訓練時看過的圖片數"),
    "truncation": ("Truncation: the smaller, the softer and more alike the faces, with fewer artefacts",
                   "截断系数：越小，人脸越柔和、越相似，瑕疵也越少", "截斷係數：越小，人臉越柔和、越相似，瑕疵也越少"),
    "attributes": ("Attributes: + with, – without, ? left to chance", "属性：+ 有，– 无，? 随机", "屬性：+ 有，– 無，? 隨機"),
    "faces": ("Faces", "人脸", "人臉"), "walk": ("Interpolation", "插值", "內插"),
    "vary": ("Variations", "变体", "變體"), "compare": ("Comparison", "对比", "對比"),
    "first": ("First seed", "起始种子", "起始種子"), "count": ("How many", "人脸数量", "人臉數量"),
    "again": ("Other faces", "换一批", "換一批"), "save": ("Download as one picture", "下载为一张图片", "下載為一張圖片"),
    "picked": ("Click on two faces, then see them in *Interpolation*; the last one clicked is also the one in *Variations*.",
               "依次点击两张脸，再到“插值”里看两者之间的过渡；最后点击的那张也是“变体”的原图。",
               "依序點選兩張臉，再到「內插」裡看兩者之間的過渡；最後點選的那張也是「變體」的原圖。"),
    "start": ("From seed", "起点种子", "起點種子"), "end": ("To seed", "终点种子", "終點種子"),
    "which": ("Seed", "种子", "種子"), "strength": ("Amount of change", "变化幅度", "變化幅度"),
    "more": ("Other variations", "换一组变体", "換一組變體"), "other": ("Other generator", "另一个生成器", "另一個生成器"),
}
# Writes the state of the page into its address.
REMEMBER = """(...all) => {
    const [weights, first, count, truncation, ...labels] = all.slice(7), address = new URL(window.location);
    Object.entries({weights, first, count, truncation, labels}).forEach(([key, value]) => address.searchParams.set(key, value));
    window.history.replaceState(null, "", address);
    return all;
}"""


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


class Page:
    """The functions behind the page. Their arguments come from visitors, who may send any value, and are bounded here.

    Files are written into `folder`. Each kind of file has one name, for Gradio copies a file before the next request is drawn.
    """

    def __init__(self, generators, folder):
        self.generators, self.folder = generators, Path(folder)
        self.attributes = list(dict.fromkeys(name for generator in generators.values() for name in generator.plan.labels))

    def generator(self, name):
        """The generator of this name."""
        if str(name) not in self.generators:
            raise gr.Error("no such generator", print_exception=False)
        return self.generators[str(name)]

    def inputs(self, weights, seeds, truncation, labels):
        """A generator and its inputs for these seeds. A `truncation` below 1 moves z towards the mean of the noise."""
        generator = self.generator(weights)
        plan = generator.plan
        asked = {name: 1 if label == "+" else -1 for name, label in zip(self.attributes, labels) if label in ("+", "-")}
        inputs = face_inputs(plan, seeds, asked)
        middle = np.float32(sum(LIMITS[plan.noise]) / 2)
        share = np.float32(bounded(truncation, MIN_TRUNCATION, 1, 1))
        inputs[:, :plan.z_dim] = middle + share * (inputs[:, :plan.z_dim] - middle)
        return generator, inputs

    def faces(self, weights, first, count, truncation, labels):
        """A gallery of the faces of seeds in a row, with their seeds."""
        seeds = seeds_from(first, count)
        return list(zip(enlarged(draw_faces(*self.inputs(weights, seeds, truncation, labels))), map(str, seeds)))

    def picture(self, gallery):
        """A gallery as one picture: the path of a file."""
        path = self.folder / "faces.png"
        figures.save_picture(path, figures.grid(np.stack([face for face, _ in gallery])))
        return str(path)

    def walk(self, weights, start, end, truncation, labels):
        """An interpolation from one seed to another and back: the path of a .gif file."""
        generator, z = self.inputs(weights, [seed(start), seed(end)], truncation, labels)
        path = self.folder / "walk.gif"
        save_walk(path, generator, *z)
        return str(path)

    def vary(self, weights, which, direction, strength, truncation, labels):
        """A gallery of one face and its variations: an interpolation to another face, which `direction` chooses, up to the share
        `strength` of the way."""
        other = int(draws(seed(which), "variation", seed(direction)).integers(MAX_SEED))
        generator, z = self.inputs(weights, [seed(which), other], truncation, labels)
        z[1, generator.plan.z_dim:] = z[0, generator.plan.z_dim:]  # with the same attributes
        shares = np.linspace(0, bounded(strength, 0, 1, 0.6), VARIATIONS)
        faces = draw_faces(generator, between(generator.plan, *z, shares))
        return list(zip(enlarged(faces), (f"{share:.0%}" for share in shares)))

    def asked_for(self, request: "gr.Request"):
        """The state in the page's address: generator, first seed, how many, truncation, labels; else the defaults."""
        asked = request.query_params.get
        weights = asked("weights") if asked("weights") in self.generators else next(iter(self.generators))
        labels = [label if label in ("+", "-") else "" for label in asked("labels", "").split(",")]
        labels = (labels + [""] * len(self.attributes))[:len(self.attributes)]
        return [weights, seed(asked("first")), int(bounded(asked("count"), 1, MAX_FACES, 16)),
                bounded(asked("truncation"), MIN_TRUNCATION, 1, 1), *labels]


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
            with gr.Tab(words("compare"), visible=len(choices) > 1):
                other = gr.Dropdown(choices, value=choices[-1][1], label=words("other"), elem_id="other")
                with gr.Row():
                    sides = [gallery("side1"), gallery("side2")]
        view, direction = gr.State("faces"), gr.State(0)

        def draw(view, other, start, end, which, direction, strength, weights, first, count, truncation, *labels):
            """The output of the open tab."""
            if view == "walk":
                return {film: page.walk(weights, start, end, truncation, labels)}
            if view == "vary":
                return {variations: page.vary(weights, which, direction, strength, truncation, labels)}
            if view == "compare":
                return {side: page.faces(name, first, count, truncation, labels) for side, name in zip(sides, (weights, other))}
            drawn = page.faces(weights, first, count, truncation, labels)
            return {faces: drawn, save: page.picture(drawn)}

        def open_tab(tab: gr.SelectData):
            return ("faces", "walk", "vary", "compare")[tab.index]

        def pick(place: gr.SelectData, end):
            """The clicked face becomes the end of the interpolation, and the old end its start."""
            return seed(end), seed(place.value["caption"]), seed(place.value["caption"])

        def switch(name):
            """Shows the attributes that the generator has."""
            known = page.generator(name).plan.labels
            radios = {label: gr.Radio(visible=label.label in known) for label in labels}
            return {switches: gr.Accordion(visible=bool(known)), **radios}

        shown = [weights, first, count, truncation, *labels]
        drawing = {"fn": draw, "js": REMEMBER, "outputs": [faces, save, film, variations, *sides],
                   "inputs": [view, other, start, end, which, direction, strength, *shown],
                   "concurrency_limit": 1, "trigger_mode": "always_last", "preprocess": False}  # `Page` bounds all values
        gr.on([*(part.input for part in (first, start, end, which, weights, other, *labels)),
               *(part.release for part in (truncation, count, strength))], **drawing)
        again.click(lambda: int(np.random.default_rng().integers(10 ** 6)), None, first).then(**drawing)
        more.click(lambda number: number + 1, direction, direction).then(**drawing)
        tabs.select(open_tab, None, view).then(**drawing)
        faces.select(pick, end, [start, end, which], preprocess=False)
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
