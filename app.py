"""A page to play with a generator: faces from seeds, walks between them, variations, attributes, two generators side by side.

    python app.py                               # http://127.0.0.1:7860, with the weights that generator.py draws with
    python app.py Output/best.safetensors Output-2/best.safetensors     # these; the page offers all of them
    python app.py --host 0.0.0.0                # for others in the network too

The address of the page holds what it shows: who opens it again, or gets it from you, sees the same faces.
"""
import runtime  # noqa: I001  (first: it prepares the CPU before Paddle is imported)

import math
import os
import tempfile
from collections import deque
from pathlib import Path

import numpy as np
from PIL import Image

import figures
from checkpoint import RUN, SHIPPED, best_of, describe_generator, find_generator, load_generator
from network import draw_faces
from randomness import LIMITS, between, draws, face_inputs
from runtime import UserError

try:
    import gradio as gr
except ImportError:
    raise SystemExit("app.py needs packages that are not installed; type: pip install -r requirements-app.txt") from None

MOST = 36  # faces at a time
FRAMES, SECONDS = 24, 2  # of a walk, each way
VARIATIONS = 8
SHOWN = 192  # px
WAITING = 30  # requests at a time; more are refused
KEPT = 50  # films on the disk
LARGEST = 2 ** 31 - 1  # a seed
SERVED = {"show_error": True, "max_file_size": "1b", "footer_links": [], "share": False, "enable_monitoring": False}
WORDS = {  # what the page says, in the visitor's language
    "en": {"title": "# Faces from noise", "note": "None of these people exists. A seed is a face: the same seed gives the same face again.",
           "faces": "Faces", "walk": "Walk", "vary": "Vary", "compare": "Compare", "weights": "Generator", "first": "First seed",
           "count": "How many", "truncation": "Truncation: less variety, fewer failures", "again": "Again", "draw": "Draw",
           "picked": "Click on two faces, then walk from one to the other", "from": "From seed", "to": "to seed", "go": "Walk",
           "seed": "Seed", "more": "Other variations", "strength": "How far", "other": "Other generator",
           "grid": "All in one picture"},
    "zh-CN": {"title": "# 从噪声到人脸", "note": "这些人都不存在。一个种子就是一张脸：同样的种子总是画出同样的脸。",
              "faces": "人脸", "walk": "漫步", "vary": "变化", "compare": "比较", "weights": "生成器", "first": "第一个种子",
              "count": "多少张", "truncation": "截断：变化少，失败也少", "again": "再来", "draw": "画",
              "picked": "点两张脸，再从一张走到另一张", "from": "从种子", "to": "到种子", "go": "走",
              "seed": "种子", "more": "其他变化", "strength": "走多远", "other": "另一个生成器", "grid": "合成一张图"},
}
# Puts what is shown into the page's address, for the seeds are all that it takes to see it again.
REMEMBER = """(weights, first, count, truncation, ...labels) => {
    const address = new URL(window.location);
    Object.entries({weights, first, count, truncation, labels: labels.join(",")}).forEach(([k, v]) => address.searchParams.set(k, v));
    window.history.replaceState(null, "", address);
    return [weights, first, count, truncation, ...labels];
}"""


def find_weights(paths):
    """The generators that the page offers, by the name that it shows: (generator, facts), those asked for, or all there are."""
    named = [Path(path) for path in paths]
    paths = named or [Path(find_generator()), *map(best_of, sorted(Path().glob(f"{RUN}*"))), SHIPPED]
    found = {}
    for path in dict.fromkeys(path.resolve() for path in paths if named or path.exists()):
        generator, facts = load_generator(path)
        print(f"{path}: {describe_generator(facts)}")
        name = path.parent.name + "/" + path.name
        found[name if name not in found else str(path)] = generator
    return found


def enlarged(faces):
    """Faces as pictures that can be seen: a list of PIL images of SHOWN px."""
    return [Image.fromarray(face).resize((SHOWN, SHOWN), Image.Resampling.BICUBIC) for face in faces]


def bounded(number, least, most, default):
    """Whatever came, as a number that is not too small and not too large."""
    try:
        number = float(number)
    except (TypeError, ValueError, OverflowError):
        return default
    return min(max(number, least), most) if math.isfinite(number) else default


def seed(number):
    """Whatever came, as a seed."""
    return int(bounded(number, 0, LARGEST, 0))


class Page:
    """What the page's buttons do. Each takes what stands in the page, which anybody may have sent, and so is bounded here."""

    def __init__(self, generators):
        self.generators = generators
        self.attributes = list(dict.fromkeys(name for generator in generators.values() for name in generator.plan.labels))
        self.folder, self.films = tempfile.TemporaryDirectory(prefix="walks-"), deque()

    def inputs(self, weights, seeds, truncation, labels):
        """A generator, and what it draws these seeds from.

        A `truncation` below 1 moves z towards the middle of its distribution; at 0 all faces are the same.
        """
        if weights not in self.generators:
            raise gr.Error("no such generator")
        generator = self.generators[weights]
        plan = generator.plan
        asked = {name: 1 if label == "+" else -1 for name, label in zip(self.attributes, labels) if label in ("+", "-")}
        inputs = face_inputs(plan, seeds, asked)
        middle = np.float32(sum(LIMITS[plan.noise]) / 2)
        share = np.float32(bounded(truncation, 0, 1, 1))
        inputs[:, :plan.z_dim] = middle + share * (inputs[:, :plan.z_dim] - middle)
        return generator, inputs

    def faces(self, weights, first, count, truncation, *labels):
        """A gallery of faces with their seeds, and the same as one picture."""
        seeds = range(seed(first), seed(first) + int(bounded(count, 1, MOST, 16)))
        generator, inputs = self.inputs(weights, seeds, truncation, labels)
        faces = enlarged(draw_faces(generator, inputs))
        return list(zip(faces, map(str, seeds))), Image.fromarray(figures.grid(np.stack(faces)))

    def walk(self, weights, start, end, truncation, *labels):
        """A film from one seed to another and back: the path of a file, which stays until KEPT others have come."""
        generator, z = self.inputs(weights, [seed(start), seed(end)], truncation, labels)
        way = between(generator.plan, z[0], z[1], np.linspace(0, 1, FRAMES))
        faces = enlarged(draw_faces(generator, np.concatenate([way, way[-2:0:-1]])))
        handle, path = tempfile.mkstemp(suffix=".gif", dir=self.folder.name)
        os.close(handle)
        figures.save_film(Path(path), [np.asarray(face) for face in faces], 2 * SECONDS)
        self.films.append(path)
        if len(self.films) > KEPT:
            os.remove(self.films.popleft())
        return path

    def vary(self, weights, which, direction, strength, truncation, *labels):
        """One face, and what it turns into on the way to another one, which `direction` chooses; `strength` is how far it goes."""
        other = int(draws(seed(which), "variation", seed(direction)).integers(LARGEST))
        generator, z = self.inputs(weights, [seed(which), other], truncation, labels)
        z[1, generator.plan.z_dim:] = z[0, generator.plan.z_dim:]  # with the same attributes
        shares = np.linspace(0, bounded(strength, 0, 1, 0.6), VARIATIONS)
        return list(zip(enlarged(draw_faces(generator, between(generator.plan, *z, shares))), (f"{share:.0%}" for share in shares)))

    def compare(self, weights, other, first, count, truncation, *labels):
        """The same seeds drawn by two generators, as one picture each."""
        return [self.faces(name, first, count, truncation, *labels)[1] for name in (weights, other)]


def asked_for(attributes, names, request):
    """What the page's address asks for: generator, first seed, how many, truncation, labels; defaults where it says nothing good."""
    asked = dict(request.query_params)
    labels = (asked.get("labels", "").split(",") + [""] * len(attributes))[:len(attributes)]
    weights = asked.get("weights")
    return [weights if weights in names else names[0], seed(asked.get("first")), int(bounded(asked.get("count"), 1, MOST, 16)),
            bounded(asked.get("truncation"), 0, 1, 1), *(label if label in ("+", "-") else "" for label in labels)]


def build(generators):
    """The page."""
    page, names, words = Page(generators), list(generators), gr.I18n(**WORDS)
    with gr.Blocks(title="Faces from noise", delete_cache=(60, 600), analytics_enabled=False) as blocks:
        gr.Markdown(words("title"))
        gr.Markdown(words("note"))
        with gr.Row():
            weights = gr.Dropdown(names, value=names[0], label=words("weights"), elem_id="weights")
            truncation = gr.Slider(0, 1, value=1, step=0.05, label=words("truncation"))
        with gr.Row():
            labels = [gr.Radio([("?", ""), ("+", "+"), ("–", "-")], value="", label=name) for name in page.attributes]
        with gr.Tab(words("faces")):
            with gr.Row():
                first = gr.Number(0, precision=0, minimum=0, label=words("first"), elem_id="first")
                count = gr.Slider(1, MOST, value=16, step=1, label=words("count"))
                draw = gr.Button(words("draw"), variant="primary", elem_id="draw")
                again = gr.Button(words("again"), elem_id="again")
            gallery = gr.Gallery(columns=8, height=320, label=words("faces"), allow_preview=False, elem_id="faces")
            gr.Markdown(words("picked"))
            with gr.Row():
                start = gr.Number(0, precision=0, minimum=0, label=words("from"), elem_id="start")
                end = gr.Number(1, precision=0, minimum=0, label=words("to"), elem_id="end")
                go = gr.Button(words("go"), variant="primary", elem_id="go")
            film = gr.Image(label=words("walk"), type="filepath", format="gif", elem_id="film")
            grid = gr.Image(label=words("grid"), format="png", elem_id="grid")
        with gr.Tab(words("vary")):
            with gr.Row():
                which = gr.Number(0, precision=0, minimum=0, label=words("seed"), elem_id="which")
                strength = gr.Slider(0, 1, value=0.6, step=0.05, label=words("strength"))
                direction = gr.State(0)
                more = gr.Button(words("more"), variant="primary", elem_id="more")
            variations = gr.Gallery(columns=VARIATIONS, height=190, label=words("vary"), allow_preview=False, elem_id="variations")
        with gr.Tab(words("compare")):
            with gr.Row():
                other = gr.Dropdown(names, value=names[-1], label=words("other"))
                both = gr.Button(words("draw"), variant="primary", elem_id="both")
            with gr.Row():
                sides = [gr.Image(format="png", show_label=False, elem_id=f"side{side}") for side in (1, 2)]

        shown = [weights, first, count, truncation, *labels]
        alone = {"concurrency_id": "drawing", "concurrency_limit": 1}  # one drawing at a time, whichever button asks for it
        drawing = {"fn": page.faces, "inputs": shown, "outputs": [gallery, grid], "js": REMEMBER, **alone}
        gr.on([draw.click, first.submit, weights.input, *(label.input for label in labels)], **drawing)
        again.click(lambda: int(np.random.default_rng().integers(10 ** 6)), None, first).then(**drawing)

        def pick(place: gr.SelectData, end):
            """The clicked face becomes the end of a walk, and what was the end its start."""
            return end, seed(place.value["caption"]), seed(place.value["caption"])

        gallery.select(pick, end, [start, end, which])
        go.click(page.walk, [weights, start, end, truncation, *labels], film, **alone)
        more.click(lambda number: number + 1, direction, direction).then(
            page.vary, [weights, which, direction, strength, truncation, *labels], variations, **alone)
        both.click(page.compare, [weights, other, first, count, truncation, *labels], sides, **alone)

        def open_page(request: gr.Request):
            return asked_for(page.attributes, names, request)

        blocks.load(open_page, None, shown).then(**drawing)
    return blocks.queue(max_size=WAITING, api_open=False), words


def main():
    """The command: loads the generators and serves the page until it is stopped."""
    parser = runtime.Parser(__doc__)
    add = parser.add_argument
    add("weights", nargs="*", metavar="FILE", help="what train.py saved (default: all that are found)")
    add("--host", default="127.0.0.1", help="the address to listen at; 0.0.0.0: at all of this machine's (default: 127.0.0.1)")
    add("--port", type=runtime.number(int, 1, 65535), default=7860, help="(default: 7860)")
    add("--device", choices=("auto", "cpu", "gpu"), default="auto", help="(default: auto, a GPU where there is one)")
    options = parser.parse_args()
    runtime.choose_device(options.device)
    blocks, words = build(find_weights(options.weights))
    os.environ["no_proxy"] = ",".join(filter(None, ["127.0.0.1", "localhost", options.host, os.environ.get("no_proxy")]))
    try:  # Gradio asks itself whether it is there
        blocks.launch(server_name=options.host, server_port=options.port, i18n=words, **SERVED)
    except OSError as error:
        raise UserError(f"--host {options.host} --port {options.port}: cannot be listened at; name another ({error})") from None


if __name__ == "__main__":
    runtime.run_command(main)
