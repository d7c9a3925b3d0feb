"""The page in Chinese and Spanish, as a browser of such a reader shows it. Screenshots go to artefacts/."""

import re
from itertools import product

import pytest
import test_browser
from test_browser import PATIENCE, PICTURES, SIZES, expect

from ui.languages import TRANSLATIONS

app, chromium = test_browser.app, test_browser.chromium


NAME = """() => {  // where the name at the top of the page ends
    const text = document.createRange();
    text.selectNodeContents(document.querySelector('.masthead h1'));
    return text.getBoundingClientRect().right;
}"""
SHOWN = """() => {  // all that a person can read or have read to them, but code
    const seen = new Set(), there = element => element.checkVisibility({checkOpacity: true, checkVisibilityCSS: true});
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const parent = texts.currentNode.parentElement, text = texts.currentNode.textContent.trim();
        if (text && there(parent) && !parent.closest('script, style, .cm-editor, .json-holder, footer')) seen.add(text);
    }
    for (const name of ['aria-label', 'title', 'placeholder', 'alt']) {
        for (const one of document.querySelectorAll(`[${name}]`)) {
            if (there(one) && !one.closest('.cm-editor, .json-holder, footer')) seen.add(one.getAttribute(name).trim());
        }
    }
    return [...seen];
}"""


def english(locale):
    """The pieces of the English catalogue that do not belong on the page of `locale`: (sentences, whole texts)."""

    def pieces(text):
        return {one.strip(" .,:;·()“”") for one in re.split(r"<[^>]*>|{[^}]*}|\*\*|[|\n]", text)}

    words = TRANSLATIONS[locale]
    theirs = "\n".join(words.values())
    found = {one for text in words for one in pieces(text)}
    sentences = {one for one in found if re.search(r"[A-Za-z']{2,} [A-Za-z']{2,}", one) and one not in theirs}
    return sentences, {one for one in found - sentences if re.search("[A-Za-z]{3}", one) and one not in theirs}


def left_in_english(page, locale):
    """What is to be read on the page and stands in the English catalogue."""
    sentences, whole = english(locale)
    shown = page.evaluate(SHOWN)
    assert len(shown) > 20
    return {text for text in shown if text in whole or any(one in text for one in sentences)}


def visit(chromium, app, locale):
    page = chromium.new_context(viewport=SIZES["desktop"], locale=locale).new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(app.url)
    expect(page.locator("#hints")).to_contain_text("77", timeout=PATIENCE)
    return page


def decode_frames(page, locale):
    """Opens every tab in turn, and keeps what it looks like."""
    for number in range(4):
        page.get_by_role("tab").nth(number).click()
        page.wait_for_timeout(1500)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert "__i18n__" not in page.inner_text("body") and "translation_metadata" not in page.inner_text("body")
        page.screenshot(path=PICTURES / f"language-{locale}-{number}.png", full_page=True)
    page.get_by_role("tab").first.click()


def test_a_chinese_browser_gets_chinese(chromium, app):
    page = visit(chromium, app, "zh-CN")
    expect(page.locator("#generate")).to_have_text("生成")
    expect(page.locator("#example-note")).to_contain_text("示例")
    expect(page.get_by_role("tab", name="作品库")).to_be_visible()
    expect(page.locator(".masthead")).to_contain_text("写下一行字，看它活起来。")
    expect(page.locator("#examples")).to_contain_text("更快完成")
    expect(page.locator("#model input")).to_have_value("纸偶剧场（内置）")
    expect(page.locator("#prompt")).to_contain_text("请用英文")
    expect(page.locator("#about")).to_contain_text("本机已就绪")
    expect(page.locator("#about")).to_contain_text("MIT，与本应用相同")
    decode_frames(page, "zh-CN")
    page.context.close()


def test_a_spanish_browser_gets_spanish_also_in_what_changes(chromium, app):
    """Of whatever country it is: what a handler says anew is said in its language too."""
    page = visit(chromium, app, "es-MX")
    page.get_by_role("button", name="Ajustes finos").click()
    page.wait_for_timeout(500)
    expect(page.locator("#frames")).to_contain_text("Fotogramas: 16 = 2.0 s")
    expect(page.locator("#width")).to_contain_text("128 píxeles, siempre")
    page.locator("#grid input").click()
    expect(page.locator("#grid-seeds")).to_contain_text("Semillas de la cuadrícula")
    page.locator("#grid-seeds input, #grid-seeds textarea").first.fill("1, 2")
    test_browser.quickly(page, 2)
    expect(page.locator("#ahead")).to_contain_text("2 vídeos: alrededor de", timeout=PATIENCE)
    page.evaluate(test_browser.REMEMBER)
    page.locator("#generate").click()
    expect(page.locator("#stop")).to_have_text("Detener")
    expect(page.locator("#caption")).to_contain_text("Una cuadrícula de 2 vídeos · 1 fila de prompts", timeout=PATIENCE)
    lines = page.evaluate("[...window.seen].filter(Boolean)")
    assert any("Eliminando ruido · paso" in line for line in lines), lines
    assert not any(word in line for line in lines for word in ("Denoising", "left", "Getting")), lines
    test_browser.plays(page)
    expect(page.get_by_role("button", name="¿Por qué se ve así?")).to_be_visible()
    page.locator("#prompt textarea").fill("")
    page.locator("#generate").click()
    expect(page.locator("#problem")).to_contain_text("El prompt está vacío. Escribe qué debe mostrar", timeout=PATIENCE)
    page.locator("#prompt textarea").fill("A bear dances")
    page.locator("#model input").click()
    page.get_by_role("option", name="ModelScope text-to-video 1.7B").click()
    expect(page.locator("#width")).to_contain_text("De 128 a 768 píxeles")
    expect(page.locator("#ahead")).to_contain_text("en este equipo. No tiene GPU", timeout=PATIENCE)
    page.locator("#steps").scroll_into_view_if_needed()
    page.screenshot(path=PICTURES / "grid.png", full_page=True)
    decode_frames(page, "es")
    page.get_by_role("tab").nth(1).click()
    page.locator("#found .timeline input").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#found [data-part=where]")).to_contain_text("Fotograma 2 de 16 · 0.13 s")
    page.context.close()


def test_the_chosen_language_is_that_of_the_page_and_of_what_the_server_tells(chromium, app):
    """It outlives a reload, and goes before the browser's own."""
    page = visit(chromium, app, "fr-FR")
    assert page.evaluate("document.documentElement.lang") == "en"
    choice = page.locator(".masthead select")
    expect(choice).to_have_value("en")
    choice.select_option("zh-CN")
    expect(page.locator("#generate")).to_have_text("生成", timeout=PATIENCE)
    expect(page.locator("#ahead")).to_contain_text("在这台机器上约", timeout=PATIENCE)
    page.reload()
    expect(page.locator("#generate")).to_have_text("生成", timeout=PATIENCE)
    expect(choice).to_have_value("zh-CN")
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    for size, shape in SIZES.items():
        page.set_viewport_size(shape)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.screenshot(path=PICTURES / f"language-choice-{size}.png")
    choice.select_option("en")
    expect(page.locator("#generate")).to_have_text("Generate", timeout=PATIENCE)
    expect(page.locator("#ahead")).to_contain_text("on this machine", timeout=PATIENCE)
    page.context.close()


@pytest.mark.parametrize("locale", TRANSLATIONS)
def test_no_tab_has_a_text_of_the_english_catalogue(chromium, app, locale):
    """Also while a video is made, after an error, and with every section open."""
    page = visit(chromium, app, locale)
    left = left_in_english(page, locale)
    prompt = {"es": "un robot rojo baila en la playa", "zh-CN": "一个红色的机器人在海滩上跳舞"}[locale]
    page.locator("#prompt textarea").fill(prompt)
    expect(page.locator("#hints")).to_contain_text("a red robot dances on the beach", timeout=PATIENCE)
    page.locator("#fine > button").click()
    page.wait_for_timeout(500)
    for name, value in (("steps", "4"), ("frames", "8")):
        page.locator(f"#{name} input[type=number]").fill(value)
        page.locator(f"#{name} input[type=number]").press("Tab")
    page.locator("#generate").click()
    expect(page.locator("#stop")).to_be_visible(timeout=PATIENCE)
    while page.locator("#stop").is_visible():
        left |= left_in_english(page, locale)
        page.wait_for_timeout(300)
    test_browser.plays(page)
    page.locator("#facts > button").click()
    expect(page.locator("#facts")).to_contain_text('"a red robot dances on the beach"', timeout=PATIENCE)
    expect(page.locator("#facts")).to_contain_text(prompt)
    page.locator("#facts > button").click()
    page.locator("#prompt textarea").fill("")
    page.locator("#generate").click()
    expect(page.locator("#problem .failed")).to_be_visible(timeout=PATIENCE)
    for number in range(4):
        page.get_by_role("tab").nth(number).click()
        page.wait_for_timeout(1500)
        for section in page.locator("button.label-wrap:not(.open)").all():
            if section.is_visible():
                section.click()
        page.wait_for_timeout(800)
        if number == 3:
            page.locator("#shelf .compare").first.click()
            expect(page.locator("#compare h2")).to_be_visible(timeout=PATIENCE)
            page.locator("#shelf .pick").first.click()
            page.locator("#shelf .example").first.click()
            expect(page.locator("#chosen-about")).to_contain_text("·", timeout=PATIENCE)
        left |= left_in_english(page, locale)
    assert left == set()
    page.context.close()


def test_what_looks_for_english_finds_it_on_the_english_page_whose_choice_of_a_language_looks_like_a_select(
    chromium, app
):
    page = visit(chromium, app, "en")
    found = left_in_english(page, "es")
    assert {"Generate", "Examples", "Fills in its own best settings", "beach"} <= found and len(found) > 40

    choice = page.locator(".masthead select")
    for mode, (size, shape) in product(("light", "dark"), SIZES.items()):
        page.emulate_media(color_scheme=mode)
        page.wait_for_function(f"document.body.classList.contains('dark') == {str(mode == 'dark').lower()}")
        page.set_viewport_size(shape)
        style = choice.evaluate("one => ({...getComputedStyle(one), wide: one.scrollWidth <= one.clientWidth})")
        assert style["backgroundImage"].startswith("url(") and style["appearance"] == "none" and style["wide"]
        assert float(style["paddingRight"].removesuffix("px")) >= 24 and choice.bounding_box()["height"] >= 32
        name = page.evaluate(NAME)
        assert name <= choice.bounding_box()["x"]
        page.locator(".masthead").screenshot(path=PICTURES / f"language-select-{size}-{mode}.png")
    page.context.close()
