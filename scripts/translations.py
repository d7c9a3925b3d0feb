"""Finds texts of the page that are not said in every language: `python -m scripts.translations [--wrap]`.

With --wrap the texts that stand plainly in the source of ui/ are put into `say(…)`, to be formatted by ruff and looked
over. Then, and without it, prints for each language what its file in ui/translations lacks, and what nobody says.
"""

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UI = ROOT / "ui"
SPOKEN = {"label", "info", "placeholder"}  # arguments that a person reads, of whatever is called
TOLD = {  # what makes a message of a template, or tells it -> where that stands among the arguments
    **{"said": 0, "told": 0, "tell": 0, "Refused": 0},
    "tell_in": 1,
}
CARD = ("summary", "needs", "licence", "shortcomings", "not_for")  # what a model's card says in words
OWN_WORDS = (
    "Prompt",
    "Caption",
    "Motion",
    "Who is followed",
)  # settings that tabs ask for in their own words
NAMES = {"MP4", "GIF", "WebM", "curl", "7, 8, 9"}  # the same in every language
ERRORS = {  # what a person reads where it goes wrong, and toasts
    *("ValueError", "VideoError", "OSError", "MemoryError", "HTTPException", "JSONResponse"),
    *("gr.Error", "gr.Warning", "gr.Info", "gr.Success", "html.failure", "html.stopped"),
}
_ATTRIBUTE = re.compile(r'\b(?:alt|aria-label|title|placeholder)="(?=[^"{$\0]*[A-Za-z])')
FIRST = {  # what is called -> a person reads its first argument
    *("Button", "Tab", "Accordion", "UploadButton", "DownloadButton", "DuplicateButton", "LoginButton"),
    *("HTML", "Markdown", "player", "export"),
}


def plain(tree: ast.AST) -> Iterator[ast.Constant]:
    """The texts in `tree` that a person reads, and that are not said in their language."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        given = [one.value for one in node.keywords if one.arg in SPOKEN]
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in FIRST:
            given += [*node.args[:1], *(one.value for one in node.keywords if one.arg == "value")]
        for one in given:
            if isinstance(one, ast.Constant) and isinstance(one.value, str) and readable(one.value):
                yield one


def readable(text: str) -> bool:
    """Whether there is something to read in `text`, which may be HTML."""
    return re.search(r"[^\W\d_]", re.sub("<[^>]*>", "", text)) is not None


def said(tree: ast.AST) -> set[str]:
    """What is said in `tree` word by word; with values, as it is before they are filled in."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "say")
    return {call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)}


def unsaid_markup(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Lines and texts of HTML in `tree` with words, between tags or in attributes, that are said in no language."""
    for node in _outside_of_words(tree):
        text = _flat(node)
        if "=>" in text or "<" not in text and not _ATTRIBUTE.search(text):  # a script, or no markup
            continue
        between = re.sub(r"\$\{[^}]*\}", "", re.sub("<[^>]*>?|^[^<]*>", "", text)) if re.search("<[a-z]", text) else ""
        if re.search(r"[^\W\d_]{2}", between) or _ATTRIBUTE.search(text):
            yield node.lineno, text


def unsaid_errors(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Lines and texts of errors and toasts in `tree` that are no messages."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ERRORS:
            texts = [_flat(one) for argument in node.args for one in _outside_of_words(argument)]
            yield from ((node.lineno, text) for text in texts if " " in text.strip() and readable(text))


def _outside_of_words(node: ast.AST) -> Iterator[ast.Constant | ast.JoinedStr]:
    """The texts below `node` but for docstrings and what is said or told."""
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") in (*TOLD, "say"):
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if isinstance(node, ast.JoinedStr) or isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(node, ast.JoinedStr) or isinstance(child, ast.FormattedValue):
            yield from _outside_of_words(child)


def _flat(node: ast.Constant | ast.JoinedStr) -> str:
    if isinstance(node, ast.Constant):
        return node.value
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)


def messages() -> set[str]:
    """The templates of all that is told while the app runs, in pipelines and on the page."""
    found = set()
    for file in (*(ROOT / "pipelines").rglob("*.py"), *UI.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or (place := TOLD.get(getattr(node.func, "id", ""))) is None:
                continue
            if len(node.args) > place and isinstance(node.args[place], ast.Constant):
                found.add(node.args[place].value)
    return found


def declared() -> set[str]:
    """What is declared and read by a person: the settings of tasks (labels, help and choices, but for the names of
    samplers), models, detectors, motions, and the words that models know."""
    from pipelines.catalog import CATALOG, motions
    from pipelines.detectors import DETECTORS
    from pipelines.task_settings import Choice, Kept
    from pipelines.tasks import KINDS
    from ui.controls import settings_of
    from ui.pose_html import motion_title

    texts = {motion_title(name) for name in motions()}
    for setting in (one for kind in KINDS.values() for one in settings_of(kind).values()):
        texts.add(setting.label)
        if setting.asked and not isinstance(setting, Kept) and setting.label not in OWN_WORDS:
            texts.add(setting.help)
            if isinstance(setting, Choice) and setting.label != "Sampler":
                texts |= {*setting.choices.values(), setting.nothing} - {""}
    for card in CATALOG.values():
        texts |= {card.title} if "built in" in card.title else set()
        texts |= {*(getattr(card, name) for name in CARD), *(lora.title for lora in card.loras.values())}
        texts |= {word for kind, words in (card.vocabulary or {}).items() for word in (kind, *words)}
    for detector in DETECTORS.values():
        texts |= {detector.needs, detector.licence}
    return texts - NAMES


def wrap(file: Path) -> int:
    """Puts the plain texts in `file` into say(…). Returns how many there were."""
    lines = file.read_text("utf-8").encode().splitlines(keepends=True)  # AST counts bytes
    found = sorted(plain(ast.parse(b"".join(lines))), key=lambda one: (one.lineno, one.col_offset), reverse=True)
    for one in found:
        end, begin = one.end_lineno - 1, one.lineno - 1
        lines[end] = lines[end][: one.end_col_offset] + b")" + lines[end][one.end_col_offset :]
        lines[begin] = lines[begin][: one.col_offset] + b"say(" + lines[begin][one.col_offset :]
    text = b"".join(lines).decode()
    if found and "import say\n" not in text:
        *_, last = (node for node in ast.parse(text).body if isinstance(node, ast.Import | ast.ImportFrom))
        whole = text.splitlines(keepends=True)
        text = "".join([*whole[: last.end_lineno], "from ui.languages import say\n", *whole[last.end_lineno :]])
    file.write_text(text, "utf-8")
    return len(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wrap", action="store_true", help="put plain texts into say(…)")
    if parser.parse_args().wrap:
        for file in sorted(UI.glob("*.py")):
            if count := wrap(file):
                print(f"{file.relative_to(ROOT)}: {count} wrapped; run ruff")
    from ui.languages import TRANSLATIONS

    source = (declared() | messages()).union(*(said(ast.parse(file.read_text("utf-8"))) for file in UI.glob("*.py")))
    lacks = False
    for locale, words in TRANSLATIONS.items():
        for text in sorted(source - words.keys()):
            lacks = True
            print(f"{locale} lacks {text!r}")
    return int(lacks)


if __name__ == "__main__":
    sys.exit(main())
