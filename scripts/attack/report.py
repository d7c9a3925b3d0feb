"""What an attack tells: cases, each held or fallen, and the rules by which an answer of the app counts as fallen."""

import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

PATIENCE = 20.0  # seconds that a single request of a hostile input may take, where the machine does nothing else
LOOP = "event-loop"  # the line of it: its cases are those of other attacks
GAP = 0.2  # seconds: the longest that the event loop may be blocked

TRACES = ("Traceback (most recent call last)", 'File "/', "site-packages")
# What Python and its libraries say of a mistake of the programmer; a person can do nothing about it.
RAW = re.compile(
    r"\b[A-Z]\w+(?:Error|Exception)\b|NoneType|<class '|has no attribute|not supported between|unhashable type|"
    r"index out of range|invalid literal|codec can't|surrogates not allowed|is not (?:JSON )?serializable|"
    r"unexpected keyword argument|positional argument|cannot unpack|not subscriptable|\[Errno|\bKeyError\b|"
    r"argument must be|must be str|expected string|could not convert|object is not|Expecting value|NaN to integer|"
    r"validation errors? for|float infinity|too large to convert|math domain|has no len"
)
SENTENCE = re.compile(r"\S+ \S+.* .*[.!?)][\"'»]?", re.DOTALL)  # it may begin with the name of a file
UNFORESEEN = "Something went wrong inside the app"
IDENTIFIER = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")


@dataclass(frozen=True)
class Answer:
    """One answer of the app, however it was asked for."""

    asked: str  # the request, short enough to be repeated by hand
    status: int  # 0 for none at all
    text: str
    seconds: float
    failed: bool = False  # told by the app: an error in the stream, or a message of the page
    said: str | None = None  # what it told then, for a person

    def json(self) -> object:
        return json.loads(self.text)


@dataclass(frozen=True)
class Case:
    """One try. `act` returns None where the app held, else what fell."""

    name: str
    act: Callable[[], str | None]
    patience: float = PATIENCE  # seconds


@dataclass(frozen=True)
class Skip:
    """An attack, or the rest of one, that can't be carried out here."""

    why: str


@dataclass
class Tally:
    """One line of the table."""

    attack: str
    tries: int = 0
    fallen: list[tuple[str, str]] = field(default_factory=list)  # case, what fell
    worst: float = 0.0  # seconds
    skipped: list[str] = field(default_factory=list)
    spans: list[tuple[float, float, str]] = field(default_factory=list)  # monotonic: from, to, case

    def carry_out(self, cases: Iterator[Case | Skip], wanted: str = "") -> None:
        """Tries the `cases` whose names hold `wanted`. An attack that breaks off counts as fallen."""
        began = time.monotonic()
        try:
            with closing(cases):
                for case in cases:
                    if isinstance(case, Skip):
                        self.skipped.append(case.why)
                        continue
                    self.spans.append((began, time.monotonic(), f"{self.attack}:(before {case.name})"))
                    if wanted in case.name:
                        self._try(case)
                    began = time.monotonic()
        except Exception as error:
            self.fallen.append(("(the attack itself)", f"could not go on: {type(error).__name__}: {error}"))
            self.tries += 1

    def _try(self, case: Case) -> None:
        self.tries += 1
        began = time.monotonic()
        try:
            fell = case.act()
        except Exception as error:  # no answer, or one that no app gives
            fell = f"{type(error).__name__}: {error}"
        ended = time.monotonic()
        self.spans.append((began, ended, f"{self.attack}:{case.name}"))
        self.worst = max(self.worst, ended - began)
        if fell is None and ended - began > case.patience and ended - began > (allowed := case.patience * slowness()):
            fell = f"took {ended - began:.1f} s, and {allowed:.0f} are allowed"
        if fell is not None:
            self.fallen.append((case.name, fell))
            print(f"fell: {self.attack}:{case.name}: {fell[:200]}", file=sys.stderr)  # a run may take an hour


def slowness() -> float:
    """How many times longer things take now than on a machine that does nothing else, from 1 to 20."""
    began, spent = time.monotonic(), time.process_time()
    while time.process_time() - spent < 0.1:
        pass
    return min(20.0, max(1.0, (time.monotonic() - began) / 0.1))


def fault(answer: Answer, paths: Iterable[str] = (), foreseen: bool = False) -> str | None:
    """Why `answer` counts as fallen, whatever was asked; None where it held.

    `paths` are folders of the server, which no error may name. Where `foreseen`, the sentence for what nobody expected
    is no answer either: the app must say what was wrong.
    """
    if answer.status == 0:
        return _told("no answer", answer)
    wrong = answer.failed or answer.status >= 400
    if any(trace in answer.text for trace in TRACES):
        return _told("a traceback", answer)
    if not wrong:
        return None
    for path in paths:
        if path in answer.text and path not in answer.asked:
            return _told(f"the server's path {path}", answer)
    told = answer.said if answer.failed else _detail(answer.text)
    if answer.failed or answer.status >= 500:
        if told is None or not told.strip():
            return _told("an error without a word", answer)
        if not SENTENCE.fullmatch(told.strip()):
            return _told(f"no sentence: {told[:120]!r}", answer)
    if told and (raw := RAW.search(told)):
        return _told(f"raw internals ({raw[0]!r}): {told[:160]!r}", answer)
    if foreseen and told and UNFORESEEN in told:
        return _told("it was not foreseen", answer)
    foreign = set(IDENTIFIER.findall(told or "")) - set(IDENTIFIER.findall(answer.asked))
    if foreign:
        return _told(f"an id: {foreign.pop()}", answer)
    return None


def _detail(text: str) -> str | None:
    """What an error's body tells: gradio's "error", FastAPI's "detail", or the text itself."""
    try:
        body = json.loads(text)
    except ValueError:
        return text
    if isinstance(body, dict):
        for key in ("error", "detail"):
            if key in body:
                return body[key] if isinstance(body[key], str) or body[key] is None else json.dumps(body[key])
        return None
    return body if isinstance(body, str) else None


def _told(what: str, answer: Answer) -> str:
    return f"{what} | {answer.asked[:300]} -> {answer.status} {answer.text[:200]!r}"


def table(tallies: Iterable[Tally]) -> str:
    """A line an attack, then every finding with what repeats it."""
    lines = [f"{'attack':<18} {'tries':>6} {'held':>6} {'fell':>5}  worst s"]
    findings = []
    for tally in tallies:
        fell = len(tally.fallen)
        lines.append(f"{tally.attack:<18} {tally.tries:>6} {tally.tries - fell:>6} {fell:>5}  {tally.worst:7.2f}")
        lines += [f"    not tried: {why}" for why in tally.skipped]
        for case, what in tally.fallen:
            findings.append(f"FELL {tally.attack}: {case}: {what}")
            again = case if tally.attack == LOOP else f"{tally.attack}:{case}"
            findings.append(f"     repeat: python -m scripts.attack --only '{again}'")
    return "\n".join([*lines, "", *findings]).rstrip()
