"""Prompts in Spanish and Chinese, read as English, for models that know a few words only. Standard library only.

A model with a vocabulary knows so few words that a dictionary covers them all. What it makes of a prompt is a sentence
like those that the model has learned from.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from pipelines.model_tasks import Sampled, Tune

Vocabulary = Mapping[str, tuple[str, ...]]
Made = TypeVar("Made", bound=Sampled | Tune)

NOUNS = {"man": "person", "woman": "person"}  # also said of a word of the vocabulary, and left as they are
_ENDINGS = "ar a an ando ó aron aba aban".split()  # of a Spanish verb


def _verb(*stems: str) -> str:
    return " ".join(stem + ending for stem in stems for ending in _ENDINGS)


SPANISH = {  # English -> what is said for it
    "person": "persona personas alguien gente bailarín bailarina niño niña chico chica figura",
    "man": "hombre hombres señor",
    "woman": "mujer mujeres señora",
    "robot": "robot robots androide androides autómata",
    "bear": "oso osa osos osas osito osita",
    "astronaut": "astronauta astronautas cosmonauta",
    "red": "rojo roja rojos rojas",
    "orange": "naranja naranjas anaranjado anaranjada",
    "yellow": "amarillo amarilla amarillos amarillas",
    "green": "verde verdes",
    "blue": "azul azules",
    "purple": "morado morada morados moradas púrpura violeta lila",
    "pink": "rosa rosas rosado rosada",
    "white": "blanco blanca blancos blancas",
    "beach": "playa playas mar costa orilla",
    "forest": "bosque bosques selva",
    "city": "ciudad ciudades calle calles",
    "snow": "nieve nevado nevada",
    "desert": "desierto desiertos",
    "moon": "luna",
    "dancing": f"{_verb('bail', 'danz')} baile danza",
    "waving": f"{_verb('salud', 'agit')} hola saludo",
    "walking": f"{_verb('camin', 'and', 'pase')} anduvo paseo",
    "jumping": f"{_verb('salt', 'brinc')} salto saltos",
    "bowing": f"{_verb('inclin')} inclinándose reverencia reverencias",
    "kicking": f"{_verb('pate')} patada patadas",
}
CHINESE = {
    "person": "人 人物 有人 舞者 女孩 男孩 小孩 孩子",
    "man": "男人 男子 男士 先生",
    "woman": "女人 女子 女士",
    "robot": "机器人 機器人 机械人 機械人",
    "bear": "熊 小熊 狗熊 棕熊 泰迪熊 玩具熊",
    "astronaut": "宇航员 宇航員 航天员 航天員 太空人",
    "red": "红 红色 紅 紅色",
    "orange": "橙 橙色 橘 橘色 橘黄 橘黄色",
    "yellow": "黄 黄色 黃 黃色",
    "green": "绿 绿色 綠 綠色",
    "blue": "蓝 蓝色 藍 藍色",
    "purple": "紫 紫色",
    "pink": "粉 粉色 粉红 粉红色 粉紅 粉紅色",
    "white": "白 白色",
    "beach": "海滩 海灘 沙滩 沙灘 海边 海邊 海",
    "forest": "森林 树林 樹林 林中 林间 林子",
    "city": "城市 城里 城中 街 街上 街头 街道",
    "snow": "雪 雪地 雪中 雪里",
    "desert": "沙漠 荒漠",
    "moon": "月球 月亮 月面",
    "dancing": "跳舞 跳着舞 跳起舞 跳个舞 舞 舞蹈 起舞 舞动",
    "waving": "挥手 揮手 招手 挥挥手 打招呼",
    "walking": "走 走路 行走 散步 漫步",
    "jumping": "跳 跳跃 跳躍 跳起 跳起来 蹦 蹦跳",
    "bowing": "鞠躬 鞠个躬 弯腰 行礼",
    "kicking": "踢 踢腿 踢脚",
}
# Words that carry no picture of their own.
_SPANISH_PLAIN = set(
    """a al alta alto bajo brazo brazos camisa cerca clip color colores con da dan dando de del el ella en es está
    están este esta estaba hace hacen haciendo hacia hay junto la las lanza lanzando le levanta lleva llevan llevando lo
    los mano manos mientras mi muestra muñeca muñeco muy o ondea orillas papel película peluche pequeña pequeño pierna
    piernas por que ropa se sobre su sus superficie teatro traje un una uno unos unas vestida vestidas vestido vestidos
    viste visten video vídeo y
    """.split()
)
_ENGLISH_TOO = {"a", "clip", "color", "video", "hay", "o", "robot", "robots", "mar"}  # these tell no language
_ENGLISH_PLAIN = set("an and at by dressed in is of on the wearing who with".split())
_CHINESE_PLAIN = re.compile(
    "一个|一個|一只|一隻|一名|一位|一头|这个|那个|穿着|穿著|身穿|身着|衣服|衬衫|上衣|的衣|裙子|正在|视频|影片|动画|可爱|"
    "向大家|来回|[的地得在上里裡中正着著了和与與跟他她它这那有是穿衣服装身小大个位一只条头名匹]"
)
_HAN = "[\u3400-\u9fff]+"

_THIRD = {  # of what somebody does
    "dancing": "dances",
    "waving": "waves",
    "walking": "walks",
    "jumping": "jumps",
    "bowing": "bows",
    "kicking": "kicks",
}
_ON = ("beach", "moon")  # places that one is on, not in


@dataclass(frozen=True)
class Reading:
    """A prompt in English, and those words of the one that was written which it leaves out."""

    text: str
    unknown: tuple[str, ...] = ()


def read(prompt: str, vocabulary: Vocabulary | None) -> Reading | None:
    """What a model with `vocabulary` reads where `prompt` is in Spanish or Chinese; None where it is in English, where
    nothing of it is known, and for a model without one."""
    if not vocabulary:
        return None
    prompt = unicodedata.normalize("NFC", prompt)
    found = _of_chinese(prompt, vocabulary) if re.search(_HAN, prompt) else _of_spanish(prompt, vocabulary)
    if found is None:
        return None
    words, unknown, before = found
    return Reading(_sentence(words, before), tuple(dict.fromkeys(unknown)))


def worded(task: Made, vocabulary: Vocabulary | None) -> Made:
    """`task` with the prompts that a model with `vocabulary` is to be given."""
    read_as = {
        name: reading.text
        for name in ("prompt", "negative_prompt")
        if (reading := read(getattr(task, name, ""), vocabulary)) is not None
    }
    return replace(task, **read_as) if read_as else task


# Finding words -------------------------------------------------------------------------------------------------------

_Found = tuple[list[tuple[str, str]], list[str], bool]  # (kind, word) in order, unknown words, colours come before


def _known(said: Mapping[str, str], vocabulary: Vocabulary) -> dict[str, tuple[str, str]]:
    """What may be said -> its kind and its English, for the words of `vocabulary`."""
    kinds = {word: kind for kind, words in vocabulary.items() for word in words}
    kinds |= {noun: kinds[word] for noun, word in NOUNS.items() if word in kinds}
    return {one: (kinds[word], word) for word, all_of_it in said.items() if word in kinds for one in all_of_it.split()}


def _english(vocabulary: Vocabulary) -> dict[str, tuple[str, str]]:
    known = {word: (kind, word) for kind, words in vocabulary.items() for word in words}
    return known | {_THIRD[word]: known[word] for word in _THIRD if word in known}


def _of_spanish(prompt: str, vocabulary: Vocabulary) -> _Found | None:
    known, english = _known(SPANISH, vocabulary), _english(vocabulary)
    said = re.findall(r"[^\W\d_]+", prompt.lower())
    telling = {one for one in said if one in known and one not in english and one not in _ENGLISH_TOO}
    spanish = {one for one in said if one in _SPANISH_PLAIN and one not in _ENGLISH_TOO}
    unknown = [one for one in said if one not in known and one not in _SPANISH_PLAIN and one not in english]
    if not telling or not _ENGLISH_PLAIN.isdisjoint(said) or (unknown and len(telling) + len(spanish) < 2):
        return None
    found = {**english, **known}
    return [found[one] for one in said if one in found], unknown, False


def _of_chinese(prompt: str, vocabulary: Vocabulary) -> _Found | None:
    known = _known(CHINESE, vocabulary)
    english = _english(vocabulary)
    longest = sorted(known, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest)))
    words: list[tuple[str, str]] = []
    unknown: list[str] = []

    def rest(text: str) -> Iterator[str]:
        for one in re.findall(f"{_HAN}|[^\\W\\d_]+", text):
            if not re.match(_HAN, one) or len(_CHINESE_PLAIN.sub("", one)) > 0:
                yield one

    at, met = 0, False
    for match in (*pattern.finditer(prompt), None):
        for one in rest(prompt[at : match.start() if match else len(prompt)]):
            if one.lower() in english:
                words.append(english[one.lower()])
            elif one.lower() not in _ENGLISH_PLAIN | {"a"}:
                unknown.append(one if not re.match(_HAN, one) else _trimmed(one))
        if match:
            words.append(known[match[0]])
            at, met = match.end(), True
    return (words, unknown, True) if met else None


def _trimmed(run: str) -> str:
    """An unknown run of Chinese without the plain words around it."""
    kept = [part for part in _CHINESE_PLAIN.split(run) if part]
    return max(kept, key=len)


# Putting them into a sentence ----------------------------------------------------------------------------------------


def _sentence(words: Sequence[tuple[str, str]], before: bool) -> str:
    """The words as a caption: who in which colours, what they do, where. Colours come `before` those who wear them, or
    after."""
    who = _who(words, before)
    rest = {kind: list(dict.fromkeys(word for one, word in words if one == kind)) for kind in dict(words)}
    does, places = rest.pop("actions", []), rest.pop("places", [])
    subject = " and ".join(_subject(noun, colours) for noun, colours in who)
    third = [_THIRD.get(word, f"is {word}") for word in does]
    if len(who) > 1:
        third = [word.removesuffix("s") if word in _THIRD.values() else word.replace("is ", "are ") for word in third]
    if does and not who:
        subject = "someone"
    other = [word for kind, found in rest.items() if kind not in ("characters", "colours") for word in found]
    where = [f"{'on' if place in _ON else 'in'} the {place}" for place in places]
    return " ".join(part for part in (subject, " and ".join(third), *other, *where) if part)


def _who(words: Sequence[tuple[str, str]], before: bool) -> list[tuple[str, list[str]]]:
    """Everybody with their colours."""
    who: list[tuple[str, list[str]]] = []
    waiting: list[str] = []  # colours of somebody who is named next
    for number, (kind, word) in enumerate(words):
        following = words[number + 1][0] if number + 1 < len(words) else ""
        if kind == "characters":
            who.append((word, waiting))
            waiting = []
        elif kind == "colours" and who and not (before and following == "characters"):
            who[-1][1].append(word)
        elif kind == "colours":
            waiting.append(word)
    return [*who, ("someone", waiting)] if waiting else who


def _subject(noun: str, colours: Sequence[str]) -> str:
    told = " and ".join(dict.fromkeys(colours))
    if not told:
        return noun if noun == "someone" else _with_article(noun)
    if noun == "someone":
        return f"{noun} in {told}"
    return f"{_with_article(noun)} in {told}" if noun in ("person", *NOUNS) else _with_article(f"{told} {noun}")


def _with_article(text: str) -> str:
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"
