"""What a text encoder has read, kept among the data: whole, its own, bounded, and nothing else."""

import os

import pytest
import torch

from pipelines.models.convert import states
from pipelines.models.text_states import TextStates
from pipelines.serving.local import local_backend
from pipelines.settings import Settings

LENGTH = 8


@pytest.fixture
def settings(tmp_path):
    return Settings(data=tmp_path, device="cpu", hub=False)


def read(tokens=5, seed=0, dtype=torch.float32):
    """States of a text of so many tokens: (LENGTH, 4)."""
    found = torch.randn(LENGTH, 4, generator=torch.Generator().manual_seed(seed)).to(dtype)
    found[tokens:] = 0
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [0, 1, 5, LENGTH])
def test_what_was_kept_comes_back_bit_by_bit(settings, tokens, dtype):
    found = read(tokens, dtype=dtype)
    TextStates(settings, "weights", LENGTH).keep("a robot", found)
    again = TextStates(settings, "weights", LENGTH).get("a robot")
    assert again.dtype == dtype and torch.equal(again, found)


def test_a_text_is_found_only_by_itself_and_by_the_same_encoder(settings):
    kept = TextStates(settings, "weights", LENGTH)
    kept.keep("a robot", read())
    assert kept.get("a Robot") is None and TextStates(settings, "others", LENGTH).get("a robot") is None
    assert TextStates(settings, "weights", LENGTH + 1).get("a robot") is None


def test_neither_the_text_nor_padding_is_written(settings):
    kept = TextStates(settings, "weights", 512)
    kept.keep("a secret robot", torch.cat([read(), torch.zeros(512 - LENGTH, 4)]))
    (file,) = settings.texts.iterdir()
    assert b"secret" not in file.read_bytes() and "secret" not in file.name
    assert states.load(file, torch.device("cpu"))["states"].shape == (5, 4)


@pytest.mark.parametrize("where", ["cut", "flipped", "emptied", "a folder", "another length", "another kind"])
def test_a_damaged_file_is_read_as_none_and_written_anew(settings, where):
    kept = TextStates(settings, "weights", LENGTH)
    kept.keep("a robot", read())
    (file,) = settings.texts.iterdir()
    content = file.read_bytes()
    match where:
        case "cut":
            file.write_bytes(content[:-7])
        case "flipped":
            file.write_bytes(content[:-7] + bytes([content[-7] ^ 4]) + content[-6:])
        case "emptied":
            file.write_bytes(b"")
        case "a folder":
            file.unlink()
            file.mkdir()
        case "another length":
            states.save({"states": torch.zeros(LENGTH + 1, 4), "digest": ""}, file)
        case "another kind":
            states.save({"states": 7, "digest": ""}, file)
    assert kept.get("a robot") is None
    kept.keep("a robot", read(seed=1))
    if where != "a folder":
        assert torch.equal(kept.get("a robot"), read(seed=1))


def test_states_that_are_no_numbers_are_not_kept(settings):
    kept = TextStates(settings, "weights", LENGTH)
    kept.keep("a robot", read().fill_(float("nan")))
    assert kept.get("a robot") is None


def test_those_unused_for_longest_go_where_all_take_too_much(settings):
    kept = TextStates(settings, "weights", LENGTH)
    kept.keep("0", read())
    (file,) = settings.texts.iterdir()
    size = file.stat().st_size
    kept = TextStates(settings, "weights", LENGTH, most=3 * size)
    for number in (1, 2):
        kept.keep(str(number), read())
    for second, file in enumerate(map(kept._file, "012")):
        os.utime(file, (second, second))
    assert kept.get("0") is not None  # which is used now
    kept.keep("3", read())
    assert [kept.get(text) is not None for text in "0123"] == [True, False, True, True]


def test_a_data_folder_that_can_not_be_written_does_without(settings):
    settings.texts.write_text("no folder")
    kept = TextStates(settings, "weights", LENGTH)
    kept.keep("a robot", read())
    assert kept.get("a robot") is None


def test_they_age_with_all_else_among_the_data(settings):
    TextStates(settings, "weights", LENGTH).keep("a robot", read())
    backend = local_backend(settings)
    try:
        (thing,) = [thing for thing in backend.assets.things() if thing.kind == "texts"]
        assert thing.keep_days == settings.keep_days and thing.held  # it was written just now
        thing.delete()
        assert not list(settings.texts.iterdir())
    finally:
        backend.close()
