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
TOLD = {"said", "tell"}  # make a message of a template, or tell it
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


def messages() -> set[str]:
    """The templates of all that is told while the app runs, in pipelines and on the page."""
    found = set()
    for file in (*(ROOT / "pipelines").rglob("*.py"), *UI.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in TOLD and node.args:
                found |= {node.args[0].value} if isinstance(node.args[0], ast.Constant) else set()
    return found


def declared() -> set[str]:
    """What the declared settings of tasks say on the page: labels, help and choices, but for the names of samplers."""
    from pipelines.task_settings import Choice, Kept
    from ui.controls import KINDS, settings_of

    texts: set[str] = set()
    for setting in (one for kind in KINDS for one in settings_of(kind).values()):
        if (
            not setting.asked
            or isinstance(setting, Kept)
            or setting.label in ("Prompt", "Caption", "Motion", "Who is followed")
        ):
            continue  # their tabs ask for these in words of their own
        texts |= {setting.label, setting.help}
        if isinstance(setting, Choice) and setting.label != "Sampler":
            texts |= {*setting.choices.values(), setting.nothing} - {""}
    return texts


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
