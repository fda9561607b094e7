"""What must be found in no output: a token, a user's name, a path; and HTML, Markdown and escape sequences in
names, labels and texts, which must stay words.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from place import Place
from trial import DONE, REFUSED, Outcome, Seen, Trial, command_line, run, wrongs

TOKEN = "hf_" + "Planted" * 5
USER = "plantedname"
HOSTILE = {
    "HTML": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "Markdown": "[click](javascript:alert(1)) ![x](http://evil.example/x.png) | a | `b`",
    "escape sequences": "\x1b[2J\x1b[31mred\x07\u202e",
    "an end of a block": "---\nlicense: evil\n---\n# heading",
}
ACTIVE = ("script", "iframe", "object", "embed", "link", "meta", "base", "form")


def outcomes(place: Place) -> Iterator[Outcome]:
    yield from secrets(place)
    for kind, word in HOSTILE.items():
        yield from hostile_names(place, kind, word)
        yield from hostile_data(place, kind, word)


# ---------------------------------------------------------------- secrets


def secrets(place: Place) -> Iterator[Outcome]:
    """A run of a user with a token, in a folder that bears a name."""
    home = place.fresh() / USER
    home.mkdir()
    base = Path(shutil.copytree(place.base, home / "base"))
    data = Path(shutil.copy(place.pairs, home / "sts.jsonl"))
    source = {"type": "sts", "data": str(data)}
    recipe = place.recipe(base=str(base), tasks={"one": source, "two": source | {"limit": 48}})
    out = home / "run"
    env = {"HF_TOKEN": TOKEN, "HUGGING_FACE_HUB_TOKEN": TOKEN, "USER": USER, "LOGNAME": USER}
    trial = Trial("run", ["run", recipe, "--out", out], None, DONE, env=env)
    seen = run(lambda: command_line(trial), seconds=120, memory=3000)
    assert seen.status == 0, seen.err
    yield Outcome(
        "a token in the environment: output and every file of a run", _holds(out, TOKEN, seen), "nowhere"
    )
    model = out / "merged" / "average"
    for name in ("README.md", "model_card_template.md"):
        if (model / name).is_file():
            yield Outcome(f"a user's name and path: {name}", _in_text(model / name, USER), "nowhere")
    yield Outcome("a user's name and path: the report", _in_text(out / "report.html", USER), "nowhere")
    sent = place.fresh() / "sent"
    words = ["push", model, "alice/x", "--license", "mit", "--dry-run"]
    shown = Trial("push", words, None, DONE, before=lambda: _sent_to(sent), env=env)
    seen = run(lambda: command_line(shown), seconds=60, memory=3000)
    found = [file for file in sent.rglob("*") if file.is_file() and USER.encode() in file.read_bytes()]
    why = f"{found[0].name} holds it" if found else "" if seen.status == 0 else seen.err[-300:]
    yield Outcome("a user's name and path: all that a push sends", why, "nowhere")
    for verb, line in {
        "push": ["push", home / "nothing", "alice/x"],
        "merge": place.merge(home / "out", base=home / "nothing"),
        "eval-mteb": place.score(home / "out", model=home / "nothing"),
    }.items():
        trial = Trial("a token in the environment: an error", line, None, REFUSED, env=env)
        seen = run(lambda trial=trial: command_line(trial), seconds=60, memory=3000)  # type: ignore[misc]
        why = "; ".join(wrongs(trial, seen)) or ("told" if TOKEN in seen.err + seen.out else "")
        yield Outcome(trial.fault, why, f"{verb}: {seen.sentences[-1][:100]}" if seen.sentences else "")


def _sent_to(folder: Path) -> None:
    """Have a plan of a push also write all its files into `folder`."""
    from selfpos.publishing import plan as plans

    original = plans.PushPlan.__init__

    def kept(self: Any, *args: Any, **fields: Any) -> None:
        original(self, *args, **fields)
        for file in self.files:
            (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
            (folder / file.path).write_bytes(file.read())

    plans.PushPlan.__init__ = kept  # type: ignore[method-assign]


def _holds(folder: Path, word: str, seen: Seen) -> str:
    if word in seen.out + seen.err:
        return "it was told"
    found = [path for path in folder.rglob("*") if path.is_file() and word.encode() in path.read_bytes()]
    return f"{found[0].relative_to(folder)} holds it" if found else ""


def _in_text(file: Path, word: str) -> str:
    found = file.read_text(encoding="utf-8").find(word)
    return "" if found < 0 else f"…{file.read_text(encoding='utf-8')[max(0, found - 60) : found + 30]!r}"


# ---------------------------------------------------------------- hostile words


class Page(HTMLParser):
    """Counts what a page would run or load, apart from what is its own."""

    def __init__(self) -> None:
        super().__init__()
        self.active: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        handlers = [name for name in values if name.startswith("on")]
        links = [value or "" for name, value in attrs if name in ("href", "src", "action")]
        bad = [value for value in links if re.match(r"\s*(javascript|data:text|http://evil)", value, re.I)]
        if tag in ACTIVE or handlers or bad:
            self.active.append(f"<{tag} {' '.join([*handlers, *bad])}>")

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def active(page: str) -> list[str]:
    """The tags of a page that do something."""
    parser = Page()
    parser.feed(page)
    return parser.active


def rendered(markdown: str) -> str:
    """A card as the Hub shows it, with HTML let through."""
    from markdown_it import MarkdownIt

    body = re.sub(r"\A---\n.*?\n---\n", "", markdown, flags=re.DOTALL)
    return str(MarkdownIt("commonmark", {"html": True}).enable("table").render(body))


def hostile_names(place: Place, kind: str, word: str) -> Iterator[Outcome]:
    """A base and a vector whose folders' names are hostile, in the card, the report and the terminal."""
    folder = place.fresh()
    name = word.replace("/", "-").replace("\0", "")[:200]
    base = Path(shutil.copytree(place.base, folder / f"b{name}"))
    vector = Path(shutil.copytree(place.vectors[0], folder / f"v{name}"))
    out = folder / "out"
    trial = Trial(
        f"{kind} in a model's name: card and terminal",
        place.merge(out, base=base, vectors=[vector]),
        out,
        DONE,
    )
    seen = run(lambda: command_line(trial), memory=3000)
    why = [*wrongs(trial, seen), *raw(seen)]
    if seen.status == 0:
        card = (out / "README.md").read_text(encoding="utf-8")
        why += [f"the card has {tag}" for tag in active(rendered(card))]
        why += ["the card has an escape sequence"] if "\x1b" in card or "\u202e" in card else []
        why += ["the card's metadata were changed"] if "license: evil" in card.split("\n---\n")[0] else []
    yield Outcome(
        trial.fault, "; ".join(why) and f"{'; '.join(why)}: {seen.err[-200:]}", "words, as they stand"
    )


def raw(seen: Seen) -> list[str]:
    """Whether an escape sequence reached the terminal."""
    return ["it reached the terminal raw"] if re.search("[\x1b\x07\u202e]", seen.out + seen.err) else []


def hostile_data(place: Place, kind: str, word: str) -> Iterator[Outcome]:
    """Texts and labels that are hostile, through a whole run, in every page, card and line of the log."""
    rows = [{"text": f"{word} {number}", "label": f"{word}{number % 2}"} for number in range(48)]
    data = place.lines(f"hostile-{next(place.numbers)}.jsonl", rows)
    tasks = {
        "one": {"type": "classification", "data": str(data)},
        "two": {"type": "sts", "data": str(place.pairs)},
    }
    folder = place.fresh() / name_of(word)
    folder.mkdir()
    base = Path(shutil.copytree(place.base, folder / "base"))
    recipe = place.recipe(base=str(base), tasks=tasks, probe={"per_task": 8})
    out = place.fresh() / "out"
    trial = Trial(
        f"{kind} in texts, labels and paths: a whole run",
        ["run", recipe, "--out", out],
        None,
        DONE,
        seconds=120,
    )
    seen = run(lambda: command_line(trial), seconds=120, memory=3000)
    why = [*wrongs(trial, seen), *raw(seen)]
    for file in [*out.rglob("*.html"), *out.rglob("README.md"), *out.rglob("*.log")]:
        text = file.read_text(encoding="utf-8")
        page = text if file.suffix == ".html" else rendered(text) if file.suffix == ".md" else ""
        own = ["<meta >", "<script >", "<link >"] if file.suffix == ".html" else []
        why += [f"{file.name} has {tag}" for tag in active(page) if tag not in own]
        if re.search("[\x1b\x07\u202e]", text):
            why.append(f"{file.name} has an escape sequence")
        if file.suffix == ".html" and "<script>alert" in text:
            why.append("the report would run it")
    yield Outcome(
        trial.fault, "; ".join(why) and f"{'; '.join(why)}: {seen.err[-200:]}", "words, as they stand"
    )


def name_of(word: str) -> str:
    return word.replace("/", "-")[:200]
