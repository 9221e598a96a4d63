"""The documents: each page says what its Chinese twin says, links lead somewhere, and options are those of the commands."""
import re
from collections import Counter
from pathlib import Path

import paddle
import pytest

ROOT = Path(__file__).parent.parent
ENGLISH = [ROOT / "README.md", *sorted(page for page in (ROOT / "docs").glob("*.md") if not page.stem.endswith("_cn"))]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("pretrained/*.md")]


def twin(page):
    return page.with_name(page.stem + "_cn.md")


def split(page):
    """A page's lines of text and its lines of code, which are fenced or indented by four spaces."""
    text, code, fenced = [], [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        else:
            (code if fenced or line.startswith("    ") else text).append(line)
    return text, code


def headings(page):
    """The headings of a page, as (level, anchor)."""
    found = [re.match("(#+) (.*)", line) for line in split(page)[0]]
    return [(len(one[1]), re.sub(r"[^\w -]", "", one[2].lower()).replace(" ", "-")) for one in found if one]


def links(page, pictures=False):
    """The targets of a page's links."""
    return re.findall((r"!" if pictures else r"(?<!!)") + r"\[[^]]*\]\(([^)]+)\)", "\n".join(split(page)[0]))


def follow(page, link):
    """Where a link leads, the same for a page and its twin: an address, or a file and the place of a heading in it."""
    if re.match("https?:", link):
        return link
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    assert target.exists(), f"{page.name}: {link}"
    place = [name for _, name in headings(target)].index(anchor) if anchor else None
    return target.with_name(target.name.replace("_cn.", ".")), place


def commands(page):
    """The lines of code of a page without their comments."""
    lines = [re.sub(r"(^|\s+)# .*", "", line).rstrip() for line in split(page)[1]]
    return [line for line in lines if line]


def tables(page):
    """For each line of a table how many cells it has, and its numbers."""
    rows = [line for line in split(page)[0] if line.startswith("|")]
    return [(row.count("|"), Counter(re.findall(r"\d+(?:\.\d+)?", re.sub(r"(?<=\d),(?=\d{3})", "", row)))) for row in rows]


def terms(page):
    """What stands between backticks: names of files, options, and values."""
    return set(re.findall("`([^`]+)`", "\n".join(split(page)[0])))


ASPECTS = {
    "heading levels": lambda page: [level for level, _ in headings(page)],
    "commands": commands, "tables": tables, "terms": terms,
    "links": lambda page: Counter(follow(page, link) for link in links(page)),
    "pictures": lambda page: links(page, pictures=True),
}


@pytest.mark.parametrize("aspect", ASPECTS)
@pytest.mark.parametrize("page", ENGLISH, ids=lambda page: page.stem)
def test_a_page_and_its_twin_say_the_same(page, aspect):
    assert ASPECTS[aspect](page) == ASPECTS[aspect](twin(page))


def test_no_page_in_docs_is_chinese_alone():
    assert {page for page in PAGES if page.stem.endswith("_cn")} == set(map(twin, ENGLISH))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere_and_scripts_exist(page):
    for link in [*links(page), *links(page, pictures=True)]:
        follow(page, link)
    scripts = {term for term in terms(page) if re.fullmatch(r"[\w/.]+\.py", term)} - {"example.py"}  # which --export writes
    assert not [name for name in scripts if not (ROOT / name).exists() and not (page.parent / name).exists()]


@pytest.mark.parametrize("folder", ["intake", "training", "latent", "scoring", "support", "benchmarks", "pretrained"])
def test_the_map_names_every_module(folder):
    row, = (line for line in split(ROOT / "CONTRIBUTING.md")[0] if line.startswith(f"| `{folder}/`"))
    assert set(re.findall(r"`(\w+)`", row)) == {path.stem for path in (ROOT / folder).glob("*.py")} - {"__init__"}


@pytest.mark.parametrize("name", ["README.md", "README_cn.md"])
def test_the_readme_is_short(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 220 and max(map(len, lines)) <= 160


def test_the_pages_of_options_are_made_of_the_parsers(monkeypatch):
    pytest.importorskip("gradio", reason="app.py needs it")
    from docs import make_options

    for name, text in make_options.pages().items():
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == text, "type: python docs/make_options.py"
    texts = make_options.CHINESE["train.py"]
    monkeypatch.setitem(texts, "--gone", "没有的选项")
    with pytest.raises(SystemExit, match="train.py lacks: --gone"):
        make_options.pages()
    monkeypatch.delitem(texts, "--gone")
    monkeypatch.delitem(texts, "--batch")
    with pytest.raises(SystemExit, match="has no text for --batch"):
        make_options.pages()


@pytest.mark.skipif(not re.match(r"3\.([2-9]|\d\d)", paddle.__version__), reason="Paddle before 3.2 reads no safetensors files")
def test_the_model_cards_code_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    names = {}
    for code in re.findall("```python\n(.*?)```", (ROOT / "docs" / "model-card.md").read_text(encoding="utf-8"), re.DOTALL):
        exec(code.replace('"OWNER/NAME:BRANCH", "celeba64", source="github"', '".", "celeba64", source="local"'), names)
    assert names["faces"].shape == (3, 64, 64, 3) and names["generator"](paddle.zeros([2, 100])).shape == [2, 3, 64, 64]
