"""What the page draws from data: nobody's text becomes markup, and what matters is said."""

from html import escape
from pathlib import Path

import pytest

from pipelines.catalog import find
from pipelines.events import Preview, Progress
from pipelines.tasks import TextToVideo
from ui import html, public
from ui.stream import Moment, describe

THEATRE, FULL = find("miniature-modelscope"), find("modelscope-1.7b")
SCRIPT = "<script>alert(1)</script> & <b>"


def test_nobodys_text_becomes_markup():
    drawn = [
        html.prompt_hints(SCRIPT, THEATRE, (200, SCRIPT)),
        html.failure(SCRIPT),
        html.stopped(SCRIPT),
        html.model_card(THEATRE, SCRIPT),
        html.footlights(Moment(Progress(SCRIPT, 1, 2))),
        html.examples([html.Thumbnail(SCRIPT, SCRIPT, None, None)]),
    ]
    for page in drawn:
        assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &lt;b&gt;" in drawn[1]


def test_a_long_prompt_is_warned_of_with_the_words_that_are_cut():
    page = html.prompt_hints("a very long story", FULL, (90, "happily ever after"))
    assert "warning" in page and "77" in page and "happily ever after" in page


def test_a_prompt_that_fits_shows_its_length_and_an_empty_one_nothing():
    assert "12 of 77" in html.prompt_hints("a robot waves", THEATRE, (12, ""))
    assert "77" not in html.prompt_hints(" ", THEATRE, (2, ""))


def test_unknown_words_are_named_with_what_the_theatre_knows_and_only_for_a_model_with_a_vocabulary():
    page = html.prompt_hints("a dragon on the beach", THEATRE, None)
    assert "“dragon”" in page and all(word in page for words in THEATRE.vocabulary.values() for word in words)
    assert "dragon" not in html.prompt_hints("a dragon on the beach", FULL, None)


def test_a_model_card_says_everything_and_what_is_missing():
    page = html.model_card(FULL, "Its weights are elsewhere.")
    for text in (FULL.summary, FULL.licence, FULL.shortcomings, FULL.not_for, FULL.needs, "Its weights are elsewhere."):
        assert escape(text, quote=False) in page
    assert "<b>Ready</b>" in html.model_card(THEATRE, None)


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (Progress("Waiting", 1, 3), "Your video is next"),
        (Progress("Waiting", 2, 3, 75.0), "Place 2 in the queue · its turn comes in about 75 s"),
        (Progress("Loading the model", 25_000_000, 100_000_000), "Loading the model · 25%"),
        (Progress("Denoising", 12, 25, 6.4), "Denoising · step 12 of 25 · about 6 s left"),
        (Progress("Decoding", 4, 16, 0.3), "Decoding · frame 4 of 16 · about a second left"),
        (Progress("Denoising", 1, 50, 600), "Denoising · step 1 of 50 · about 10 min left"),
        (Progress("Denoising", 1, 50, 9000), "Denoising · step 1 of 50 · about 2.5 h left"),
        (Progress("Writing the file", 0, 1), "Writing the file"),
    ],
)
def test_progress_reads_as_a_sentence(progress, line):
    assert describe(progress) == line


def test_lamps_light_up_as_the_stage_goes_on():
    def lit(progress):
        return html.footlights(Moment(progress)).count('"lit"')

    assert lit(None) == lit(Progress("Waiting", 2, 2)) == lit(Progress("Loading the model", 0, 0)) == 0
    assert lit(Progress("Denoising", 5, 10)) == html.LAMPS // 2
    assert lit(Progress("Denoising", 10, 10)) == html.LAMPS
    assert lit(Progress("Decoding", 0, 10, 3.0, done=0.75)) == html.LAMPS * 3 // 4  # of the whole job
    second = Moment(Progress("Denoising", 0, 10, 3.0, done=0.5), of=(2, 3))
    assert html.footlights(second).count('"lit"') == html.LAMPS // 2 and "2 of 3" in html.footlights(second)


def test_the_stage_shows_the_video_as_it_forms():
    assert "data:image/webp;base64,UklGRg==" in html.scene("working", Moment(preview=Preview(b"RIFF")))
    assert "Generate" in html.scene("closed") and "Generate" not in html.scene("working")


def test_a_caption_tells_what_was_made():
    task = TextToVideo.for_model(THEATRE, "a robot", 123, fps=10)
    for part in ("16 frames", "1.6 s", "128×128", "25 steps of DPM-Solver++ 2M", "seed 123"):
        assert part in html.caption(task)


def test_an_example_shows_its_pictures_or_does_without():
    moving, still = public.picture(Path("examples/a b, c.webp")), public.picture(Path("examples/a.png"))
    with_both = html.examples([html.Thumbnail("a robot", "2 seconds", still, moving)])
    assert ' src="pictures/examples/a%20b%2C%20c.webp"' in with_both
    assert 'media="(prefers-reduced-motion: reduce)" srcset="pictures/examples/a.png"' in with_both
    without = html.examples([html.Thumbnail("a robot", "2 seconds", None, None)])
    assert "<img" not in without and "a robot" in without and "2 seconds" in without
