"""What a viewer might call a clip: a small grammar over the four words."""

import numpy as np

from .world import ACTIONS, CHARACTERS, COLOURS, PLACES, Words

VOCABULARY: dict[str, tuple[str, ...]] = {
    "character": CHARACTERS,
    "colour": tuple(COLOURS),
    "place": PLACES,
    "action": ACTIONS,
}

# The first name is the word itself and is said most of the time.
NOUNS = {
    "person": ("person", "man", "woman", "someone"),
    "robot": ("robot", "android"),
    "bear": ("bear", "teddy bear", "brown bear"),
    "astronaut": ("astronaut", "spaceman"),
}
PLACE_PHRASES = {
    "beach": ("on the beach", "at the beach", "by the sea"),
    "forest": ("in the forest", "in the woods"),
    "city": ("in the city", "on a city street"),
    "snow": ("in the snow", "on the snow"),
    "desert": ("in the desert", "out in the desert"),
    "moon": ("on the moon", "on the surface of the moon"),
}
VERBS = {  # (third person, -ing form)
    "dancing": (("dances", "dancing"), ("does a dance", "doing a dance")),
    "waving": (("waves", "waving"), ("waves hello", "waving hello"), ("waves a hand", "waving a hand")),
    "walking": (("walks", "walking"), ("takes a walk", "taking a walk")),
    "jumping": (("jumps", "jumping"), ("jumps up and down", "jumping up and down")),
    "bowing": (("bows", "bowing"), ("takes a bow", "taking a bow")),
    "kicking": (("kicks", "kicking"), ("kicks a leg up", "kicking a leg up")),
}
_CLOTHED = ("in {}", "wearing {}", "dressed in {}", "in a {} shirt", "wearing a {} shirt", "in {} clothes")


def caption(words: Words, rng: np.random.Generator) -> str:
    """One sentence that names all four words, itself or by a synonym."""
    colour = "violet" if words.colour == "purple" and rng.random() < 0.15 else words.colour
    noun = _pick(NOUNS[words.character], rng)
    clothed = str(rng.choice(_CLOTHED)).format(colour).replace("a orange", "an orange")
    # "A blue robot" is what people say; "a blue woman" or "a blue brown bear" is not.
    if words.character != "person" and noun != "brown bear" and rng.random() < 0.35:
        subject = f"{colour} {noun}"
    else:
        subject = f"{noun} {clothed}"
    if noun != "someone" and rng.random() < 0.8:
        subject = f"{'an' if subject[0] in 'aeiou' else 'a'} {subject}"
    third, ing = VERBS[words.action][_favour(len(VERBS[words.action]), rng)]
    verb = (third, ing, f"is {ing}")[rng.integers(3)]
    place = _pick(PLACE_PHRASES[words.place], rng)
    text = f"{place}, {subject} {verb}" if rng.random() < 0.2 else f"{subject} {verb} {place}"
    if rng.random() < 0.35:
        text = text[0].upper() + text[1:]
    return text + ("." if rng.random() < 0.25 else "")


def _favour(count: int, rng: np.random.Generator) -> int:
    """An index below count: the first two times out of three."""
    return 0 if rng.random() < 0.65 else int(rng.integers(count))


def _pick(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[_favour(len(choices), rng)]
