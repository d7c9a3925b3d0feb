"""The process that parses strangers' files: its limits hold, and nothing of its inside gets out."""

import os
import sys
import tempfile
from pathlib import Path

import pytest

from pipelines.media import limited

linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not keep this limit")


@pytest.fixture
def parse(tmp_path):
    """Has `code`, the inside of a function of `file` and `word`, parse a small file."""

    def run(code, answer=100, seconds=20):
        parser = tmp_path / "parser.py"
        lines = "".join(f"    {line}\n" for line in code.splitlines())
        parser.write_text(f"import os\nclass Refused(Exception): pass\ndef parse(file, word):\n{lines}")
        (tmp_path / "data").write_bytes(b"from a file")
        with open(tmp_path / "data", "rb", buffering=0) as file:
            file.read(3)
            return limited.parse(parser, file, seconds=seconds, memory_mb=200, answer=answer, word=word)

    word = '\u00fc\n"; exit'
    return run


def test_it_reads_the_file_from_its_beginning_and_answers(parse):
    told = parse('return {"word": word}, file.read() + b"\\n\\0"')
    assert told == ({"word": '\u00fc\n"; exit'}, b"from a file\n\0")


def test_it_sees_no_environment_and_an_empty_folder_that_is_gone_afterwards(parse, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    before = set(os.listdir(tempfile.gettempdir()))
    facts, _ = parse('return {"names": list(os.environ), "files": os.listdir(), "folder": os.getcwd()}, b""')
    assert "HF_TOKEN" not in facts["names"] and facts["files"] == [] and not os.path.exists(facts["folder"])
    assert not {name for name in set(os.listdir(tempfile.gettempdir())) - before if name == Path(facts["folder"]).name}


def test_its_refusal_is_told_and_nothing_else_that_it_raises(parse):
    with pytest.raises(ValueError, match="^Too blue[.]$"):
        parse('raise Refused("Too blue.")')
    for code in ('raise ValueError("/inside")', "1 / 0", "os._exit(3)", "os.abort()", "os.write(1, b'{'); os._exit(0)"):
        with pytest.raises(limited.Failed, match="^$"):
            parse(code)


@linux
def test_its_memory_is_limited(parse):
    assert parse("return {}, bytes(100)") == ({}, bytes(100))
    with pytest.raises(limited.OutOfMemory):
        parse("return {}, bytes(2**28)[:100]")


@linux
def test_its_computing_is_limited(parse):
    with pytest.raises(limited.OutOfTime):
        parse("while True: pass", seconds=1)


@linux
def test_it_writes_no_file(parse):
    with pytest.raises(limited.Failed):
        parse("with open('a', 'w') as made: made.write('b')")


def test_it_is_not_waited_for_without_end(parse, monkeypatch):
    monkeypatch.setattr(limited, "PATIENCE", 1)
    with pytest.raises(limited.OutOfTime):
        parse("import time; time.sleep(300)", seconds=2)


def test_a_longer_answer_than_agreed_is_no_answer(parse):
    with pytest.raises(limited.Failed):
        parse("return {}, bytes(101)")
    with pytest.raises(limited.Failed):  # nor is one without end read to its end
        parse("os.write(1, b'{}\\n')\nwhile True: os.write(1, bytes(2**16))")
    with pytest.raises(limited.Failed):
        parse('return {"word": "a" * 100_000}, b""')
