"""The words of a model with a small vocabulary: which of a prompt it has never met, and a prompt made of them."""

import re
from collections.abc import Mapping

from pipelines.messages import said as told
from pipelines.readings import read

# What people also call the things that the vocabulary names, as in the captions the paper theatre learned from.
_SYNONYMS = {
    "person": "man woman someone",
    "robot": "android",
    "bear": "teddy",
    "astronaut": "spaceman",
    "purple": "violet",
    "beach": "sea",
    "forest": "wood woods",
    "city": "street",
    "moon": "surface",
    "waving": "hello hand",
    "kicking": "leg",
}
# Words that carry no picture of their own, or that its captions use in passing.
_PLAIN = set(
    """a along an and are around as at be being by clip cloth clothed clothes clothing color colored colour coloured
    does doing doll down dress dressed film for from he her here his i in is it its just made makes making me
    movie near of off on one or our out outfit over paper picture puppet scene she shirt show shows some suit
    take takes taking that the theater theatre their there they this through to under up very video wear wearing
    wears while who with
    """.split()
)


def unknown_words(prompt: str, vocabulary: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The words of `prompt` that neither `vocabulary`, nor an inflection or a synonym of its words, covers.

    In the order they come, each once.
    """
    known = {_stem(word) for words in vocabulary.values() for word in words}
    known |= {_stem(other) for word, others in _SYNONYMS.items() if _stem(word) in known for other in others.split()}
    prompt = re.sub(r"['’](s|t|re)\b", "", prompt.lower().replace("brown bear", "bear"))
    words = dict.fromkeys(re.findall(r"[^\W\d_]+", prompt))
    return [word for word in words if word not in _PLAIN and _stem(word) not in known]


def in_english(prompt: str, vocabulary: Mapping[str, tuple[str, ...]]) -> str:
    """`prompt` as a model with this vocabulary reads it."""
    reading = read(prompt, vocabulary)
    return reading.text if reading is not None else prompt


def _stem(word: str) -> str:
    """`word` without its inflection, roughly: dance, dances, danced and dancing are one, and so are snow and snowy."""
    for suffix in ("ies", "ing", "es", "ed", "s", "e", "y"):
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word[: -len(suffix)]
    return word


_KINDS = ("characters", "colours", "actions", "places")  # in the order of a sentence; others come after
_ON = ("beach", "moon")  # places that one is on, not in


def chosen_words(prompt: str, vocabulary: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """The word of each kind in `vocabulary` that `prompt` says, in any inflection or by a synonym; the first of each
    kind, in the order of the vocabulary's kinds."""
    found: dict[str, str] = {}
    for said in re.findall(r"[^\W\d_]+", prompt.lower().replace("brown bear", "bear")):
        for kind, words in vocabulary.items():
            word = next((word for word in words if _means(said, word)), None)
            if word is not None:
                found.setdefault(kind, word)
    return {kind: found[kind] for kind in vocabulary if kind in found}


def with_word(prompt: str, kind: str, word: str, vocabulary: Mapping[str, tuple[str, ...]]) -> str:
    """`prompt` with `word` for what it says of that `kind` now; without it, where it says just that.

    One in Spanish or Chinese is put into English first. A prompt of known words only is put anew into a sentence; in
    any other the word takes the place of the old one, or comes last. Raises ValueError where the
    vocabulary has no such word.
    """
    if word not in vocabulary.get(kind, ()):
        raise ValueError(told("The model does not list this word."))
    prompt = in_english(prompt, vocabulary)
    chosen = chosen_words(prompt, vocabulary)
    before = chosen.get(kind)
    if not unknown_words(prompt, vocabulary):
        chosen = {**chosen, kind: word} if before != word else {one: chosen[one] for one in chosen if one != kind}
        return _sentence(chosen)
    if before is None:
        return f"{prompt.rstrip()} {_part(kind, word)}"

    def other(said: re.Match) -> str:
        return (word if before != word else "") if _means(said[0].lower(), before) else said[0]

    return re.sub(" +", " ", re.sub(r"[^\W\d_]+", other, prompt)).strip()


def _means(said: str, word: str) -> bool:
    others = _SYNONYMS.get(word, "").split()
    return any(_stem(said) == _stem(other) for other in (word, *others))


def _sentence(chosen: Mapping[str, str]) -> str:
    kinds = [*(kind for kind in _KINDS if kind in chosen), *(kind for kind in chosen if kind not in _KINDS)]
    text = " ".join(_part(kind, chosen[kind]) for kind in kinds)
    return text[:1].upper() + text[1:]


def _part(kind: str, word: str) -> str:
    match kind:
        case "characters":
            return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"
        case "colours":
            return f"in {word}"
        case "places":
            return f"{'on' if word in _ON else 'in'} the {word}"
    return word
