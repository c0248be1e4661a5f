"""House styles of simulated reports: how statements about nodules become Chinese or English paragraphs.

An entry (`reporting.Entry`) gives clauses by attribute; a style decides order and syntax, and adds sentences that say
nothing about a nodule's attributes (flow, comparison, recommendation).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tigerdata.phantom.reporting import Entry

ZH_FLOW = (
    "CDFI：结节内部见少许血流信号。",
    "CDFI：结节周边及内部可见血流信号。",
    "CDFI示结节内未探及明显血流信号。",
    "CDFI：结节周边见环绕血流。",
)
EN_FLOW = ("Minimal internal flow on color Doppler.", "Peripheral flow on color Doppler.", "No flow on color Doppler.")
EN_ADVICE = ("Follow-up ultrasound in 12 months is recommended.", "Clinical correlation is recommended.", "")


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def chinese(
    entries: list[Entry], gland: list[str], nodes: str, follow_up: bool, rng: np.random.Generator
) -> tuple[str, str]:
    """Findings and impression in a Chinese style: narrative, size first, numbered list, largest of many, or a pair."""
    style = int(rng.integers(4))
    if style == 3 and (len(entries) > 1 or not entries[0].side):
        style = 4 if len(entries) == 2 else 0
    in_findings = rng.uniform() < 0.25
    texts = []
    for entry in entries:
        noun = "".join(_head(entry, ("echogenicity", "composition"), rng)) + "结节"
        rest = _zh_rest(entry, rng)
        place = entry.side + entry.pole
        plane = f"{entry.plane}：" if entry.plane else ""
        if style == 0:
            text = f"{plane}{place or '甲状腺内'}{_pick(('见一', '可见一', '探及一'), rng)}{noun}，大小约{entry.size}"
        elif style == 1:
            text = f"{plane}{place or '甲状腺内'}可见一大小约{entry.size}的{noun}"
        elif style == 2:
            text = f"{plane}{place + '，' if place else ''}{entry.size}，{noun}"
        else:
            entry.gold["multiple"] = True
            text = f"{plane}甲状腺内见多发结节，较大者位于{place}，大小约{entry.size}"
            rest = [*_head(entry, ("echogenicity", "composition"), rng), *rest]
        if in_findings and entry.tirads:
            rest.append(entry.tirads)
        texts.append("，".join([text, *rest]))
    if style == 4:
        body = _zh_pair(entries, rng)
        in_findings = False
    elif style == 2:
        marks = ("①", "②") if rng.uniform() < 0.5 else ("1、", "2、")
        body = "甲状腺内见结节：" + "；".join(mark + text for mark, text in zip(marks, texts, strict=False)) + "。"
    else:
        body = "。".join(texts) + "。"
    if rng.uniform() < 0.6:
        body += _pick(ZH_FLOW, rng)
    if follow_up and rng.uniform() < 0.4:
        body += "与前次超声比较，大小无明显变化。"
    findings = gland[0] + body + gland[1] + nodes
    named = [(f"甲状腺{_zh_side(entry)}结节", entry.tirads) for entry in entries]
    impression = "；".join(name + (f"，{tirads}" if tirads and not in_findings else "") for name, tirads in named)
    return findings, impression + "。"


def _zh_pair(entries: list[Entry], rng: np.random.Generator) -> str:
    """Two nodules in one sentence: places and sizes by turns, then what the former and the latter show."""
    first, second = entries
    text = f"{first.side}{first.pole}及{second.side}{second.pole}分别见一结节，大小分别约{first.size}及{second.size}"
    for name, entry in (("前者", first), ("后者", second)):
        words = _head(entry, ("echogenicity", "composition"), rng) + _zh_rest(entry, rng)
        text += f"，{name}" + "，".join(words) if words else ""
    return text + "。"


def _zh_side(entry: Entry) -> str:
    side = (entry.gold.get("location") or {}).get("side", "")
    return {"left": "左叶", "right": "右叶", "isthmus": "峡部", "": ""}[side]


def _head(entry: Entry, names: tuple[str, ...], rng: np.random.Generator) -> list[str]:
    """Clauses that serve as adjectives of "nodule", in one of the two usual orders."""
    words = [word for name in names for word in entry.clauses.get(name, [])]
    return words[::-1] if rng.uniform() < 0.5 else words


def _zh_rest(entry: Entry, rng: np.random.Generator) -> list[str]:
    order = ("margin", "shape", "aspect", "echotexture", "calcification", "halo", "extension")
    if rng.uniform() < 0.5:
        order = ("aspect", "shape", "margin", "halo", "echotexture", "calcification", "extension")
    clauses = dict(entry.clauses)
    both = entry.gold.get("calcification") == ["absent"] and entry.gold.get("halo") == "absent"
    if both and rng.uniform() < 0.3:
        clauses["calcification"], clauses["halo"] = ["未见钙化及声晕"], []
    return [word for name in order for word in clauses.get(name, [])]


def english(
    entries: list[Entry], gland: list[str], nodes: str, follow_up: bool, rng: np.random.Generator
) -> tuple[str, str]:
    """Findings and impression in an English style: narrative, numbered list, structured, or larger and smaller."""
    style = (_narrative, _listed, _structured)[int(rng.integers(3))]
    sizes = [max(entry.gold["diameter_mm"]) for entry in entries]
    if len(entries) == 2 and sizes[0] > sizes[1] and style is _narrative:
        style = _compared
    in_findings = rng.uniform() < 0.25
    texts = []
    for k, entry in enumerate(entries):
        text = style(entry, k + 1, rng)
        if in_findings and entry.tirads:
            text += f" {entry.tirads}."
        texts.append(text)
    if style is _compared:
        texts.insert(0, "Two nodules are noted.")
    parts = [gland[0], *texts]
    if rng.uniform() < 0.4:
        parts.append(_pick(EN_FLOW, rng))
    if follow_up and rng.uniform() < 0.4:
        parts.append("No significant change from the prior study.")
    parts += [gland[1], nodes]
    named = []
    for entry in entries:
        side = (entry.gold.get("location") or {}).get("side", "")
        place = {
            "left": "Left lobe nodule",
            "right": "Right lobe nodule",
            "isthmus": "Isthmus nodule",
            "": "Thyroid nodule",
        }
        named.append(place[side] + (f", {entry.tirads}" if entry.tirads and not in_findings else "") + ".")
    advice = _pick(EN_ADVICE, rng)
    return " ".join(part for part in parts if part), " ".join(part for part in [*named, advice] if part)


def _en_place(entry: Entry) -> str:
    if entry.pole:
        return f"{entry.pole} of the {entry.side}"
    return entry.side or "thyroid"


def _narrative(entry: Entry, number: int, rng: np.random.Generator) -> str:
    """Sentences: what and where, what it is, what it shows, what is not there."""
    head = " ".join(_en_head(entry))
    article = "an" if head[:1] in "aeiou" and head else "a"
    lead = f"On the {entry.plane}, there is" if entry.plane else "There is"
    noun = f"{article} {head} nodule" if head else "a nodule"
    text = f"{lead} {noun} in the {_en_place(entry)} measuring {entry.size}."
    predicates, nouns, denied = _en_parts(entry)
    if predicates:
        text += f" It is {_join(predicates)}."
    if nouns:
        text += f" It shows {_join(nouns)}."
    for phrase in denied:
        text += f" {phrase[0].upper()}{phrase[1:]}."
    return text


def _compared(entry: Entry, number: int, rng: np.random.Generator) -> str:
    """The larger and the smaller of two nodules, described in turn by a pronoun."""
    name = "The larger" if number == 1 else "The smaller one"
    text = f"{name}, in the {_en_place(entry)}, measures {entry.size}."
    predicates, nouns, denied = _en_parts(entry)
    predicates = _en_head(entry) + predicates
    if predicates:
        text += f" It is {_join(predicates)}."
    if nouns:
        text += f" It has {_join(nouns)}."
    return text + "".join(f" It has {phrase}." for phrase in denied)


def _listed(entry: Entry, number: int, rng: np.random.Generator) -> str:
    """One line a nodule: number, place, size, everything else separated by commas."""
    place = ", ".join(word for word in (entry.side, entry.pole) if word)
    predicates, nouns, denied = _en_parts(entry)
    plane = f" on the {entry.plane}" if entry.plane else ""
    parts = [place, entry.size + plane, *_en_head(entry), *predicates, *nouns, *denied]
    return f"Nodule {number}: {', '.join(part for part in parts if part)}."


def _structured(entry: Entry, number: int, rng: np.random.Generator) -> str:
    """ACR-like fields with a heading each."""
    text = f"Nodule {number} in the {_en_place(entry)}{f' ({entry.plane})' if entry.plane else ''}. Size: {entry.size}."
    for title, names in (
        ("Composition", ("composition",)),
        ("Echogenicity", ("echogenicity",)),
        ("Echotexture", ("echotexture",)),
        ("Shape", ("aspect", "shape")),
        ("Margin", ("margin",)),
        ("Echogenic foci", ("calcification",)),
        ("Halo", ("halo",)),
        ("Extension", ("extension",)),
    ):
        words = [word for name in names for word in entry.clauses.get(name, [])]
        if words:
            text += f" {title}: {', '.join(words)}."
    return text


def _en_head(entry: Entry) -> list[str]:
    return [word for name in ("composition", "echogenicity") for word in entry.clauses.get(name, [])]


def _en_parts(entry: Entry) -> tuple[list[str], list[str], list[str]]:
    """Clauses sorted into predicates ("oval"), things shown ("thin halo") and things denied ("no halo")."""
    predicates: list[str] = []
    nouns: list[str] = []
    denied: list[str] = []
    for name in ("aspect", "shape", "margin", "echotexture", "calcification", "halo", "extension"):
        for word in entry.clauses.get(name, []):
            if word.startswith("no "):
                denied.append(word)
            elif name == "aspect" and "orientation" not in word or word.split()[0].endswith(("ing", "capsulated")):
                predicates.append(word)
            else:
                nouns.append(word)
    return predicates, nouns, denied


def _join(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
