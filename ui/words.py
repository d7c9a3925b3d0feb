"""Which words of a prompt a model with a small vocabulary has never met: a kind hint, never a hindrance."""

import re
from collections.abc import Mapping

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


def _stem(word: str) -> str:
    """`word` without its inflection, roughly: dance, dances, danced and dancing are one, and so are snow and snowy."""
    for suffix in ("ies", "ing", "es", "ed", "s", "e", "y"):
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word[: -len(suffix)]
    return word
