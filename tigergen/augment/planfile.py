"""The plan as a file: what it is made of, how it is written for people, and what is refused when it is read."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kb.errors import UserError
from kb.files import atomic_write, read_json
from tigergen.augment.coverage import contradiction
from tigergen.sampling.settings import Sampling

# Still 1: a newer plan says more about itself, but its rows mean what they meant, so older files run as they are.
FORMAT = "tiger-plan/1"
WIDTH = 120

DEFAULT = Sampling()
SAMPLING: dict[str, Any] = {
    **{name: getattr(DEFAULT, name) for name in ("steps", "guidance", "sampler", "mode")},
    "quality": "donor",
}


def plan_id(plan: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of what is generated: seed, sampling and rows, not the remarks."""
    content = {name: plan[name] for name in ("format", "seed", "sampling", "rows")}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def total(plan: Mapping[str, Any]) -> int:
    """How many images the plan asks for."""
    return sum(row["count"] for row in plan["rows"])


def plan_text(plan: Mapping[str, Any]) -> str:
    """The plan as JSON for people: indented, a list or object on one line where it fits, the rows last."""
    ordered = {**{k: v for k, v in plan.items() if k != "rows"}, "rows": plan["rows"]} if "rows" in plan else plan
    return _text(ordered, 0, 0) + "\n"


def _text(value: Any, depth: int, used: int) -> str:
    """JSON of a value whose first line starts after `used` characters."""
    short = json.dumps(value, ensure_ascii=False)
    # A row is always a block of lines, so that rows can be told apart, moved and deleted.
    block = isinstance(value, dict) and "donors" in value and "fg" in value
    if not isinstance(value, (dict, list)) or not value or (depth and not block and used + len(short) <= WIDTH):
        return short
    inner = " " * (depth + 1)
    if isinstance(value, list) and not any(isinstance(item, (dict, list)) for item in value):
        return (
            "[\n" + _wrapped([json.dumps(item, ensure_ascii=False) for item in value], inner) + "\n" + inner[1:] + "]"
        )
    if isinstance(value, list):
        parts = [inner + _text(item, depth + 1, depth + 2) for item in value]
        return "[\n" + ",\n".join(parts) + "\n" + " " * depth + "]"
    parts = []
    for name, item in value.items():
        head = f"{inner}{json.dumps(str(name), ensure_ascii=False)}: "
        parts.append(head + _text(item, depth + 1, len(head) + 1))
    return "{\n" + ",\n".join(parts) + "\n" + " " * depth + "}"


def _wrapped(items: list[str], indent: str) -> str:
    """Items separated by commas, as many on a line as fit."""
    lines = [indent + items[0]]
    for item in items[1:]:
        if len(lines[-1]) + len(item) + 3 <= WIDTH:
            lines[-1] += f", {item}"
        else:
            lines[-1] += ","
            lines.append(indent + item)
    return "\n".join(lines)


def write_plan(path: str | os.PathLike[str], plan: Mapping[str, Any]) -> None:
    """Write a plan, atomically; equal plans give equal bytes."""
    with atomic_write(path) as temporary:
        temporary.write_text(plan_text(plan), encoding="utf-8")


def read_plan(path: str | os.PathLike[str], ws: Any) -> dict[str, Any]:
    """Read a plan from a file, edited by hand or not, and check it.

    Raises:
        UserError: unreadable, or a row asks for what cannot be (the row number is named).
    """
    try:
        plan = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{Path(path).name} is not a readable plan ({error}); write one with `tigergen plan`."
        ) from error
    check_plan(plan, ws)
    return plan


def check_plan(plan: Any, ws: Any) -> None:
    """Refuse a plan that cannot or must not be run.

    Raises:
        UserError: wrong format, unknown sampling setting, or a faulty row, with its number (counted from 1).
    """
    if not isinstance(plan, dict) or plan.get("format") != FORMAT:
        raise UserError(f"this is not a plan of format {FORMAT}; write one with `tigergen plan`.")
    for name in ("seed", "sampling", "rows", "target"):
        if name not in plan:
            raise UserError(f"the plan has no '{name}'; write it again with `tigergen plan`.")
    if not isinstance(plan["sampling"], dict) or not isinstance(plan["rows"], list):
        raise UserError("the plan's 'sampling' must be an object and its 'rows' a list; write it again.")
    # A plan starts every image from noise, so it has no strength.
    unknown = sorted(set(plan["sampling"]) - ({*SAMPLING, *asdict(DEFAULT)} - {"strength"}))
    if unknown:
        raise UserError(f"the plan's sampling has unknown settings: {', '.join(unknown)}.")
    if not plan["rows"]:
        raise UserError("the plan has no rows; there is nothing to generate.")
    train = set(ws.cases("train")["image_id"])
    for number, row in enumerate(plan["rows"], 1):
        problem = _problem(row, ws.kb, train)
        if problem:
            raise UserError(f"row {number} of the plan {problem}.")


def _problem(row: Any, base: Any, train: set[str]) -> str | None:
    """What is wrong with a row, or None."""
    if not isinstance(row, dict):
        return "is not an object with label, count, fg, bg, attributes and donors"
    missing = [n for n in ("label", "count", "fg", "bg", "attributes", "donors") if n not in row]
    if missing:
        return f"has no '{missing[0]}'"
    if not str(row["label"]).isprintable() or set(str(row["label"])) & set("/\\") or str(row["label"])[:1] in ("", "."):
        return f"has the class {row['label']!r}, which cannot be the name of a folder"
    if not isinstance(row["count"], int) or isinstance(row["count"], bool) or row["count"] < 0:
        return f"has the count {row['count']!r}; it must be a whole number, 0 or more"
    if not isinstance(row["donors"], list) or not row["donors"]:
        return "has no donor; name the id of at least one training image"
    stray = [d for d in row["donors"] if not isinstance(d, str) or d not in train]
    if stray:
        return f"names the donor '{stray[0]}', which is not in the training split; only training images may be donors"
    return _wrong_words(row, base)


def _wrong_words(row: dict[str, Any], base: Any) -> str | None:
    """What is wrong with prompt and attributes of a row, or None."""
    said: dict[str, set[str]] = {}
    head = base.subtypes[row["label"]].phrase if row["label"] in base.subtypes else row["label"]
    phrases = [p.strip() for p in f"{row['fg']}, {row['bg']}".split(",") if p.strip()]
    if head not in phrases:
        return f"does not say its class: '{head}' is not in its prompt"
    if not isinstance(row["attributes"], dict) or not all(isinstance(v, list) for v in row["attributes"].values()):
        return 'has attributes that are not an object of lists, such as {"shape": ["regular"]}'
    quality = {p for words in base.quality.values() for p in words}
    for phrase in phrases:
        if phrase == head or phrase in quality:
            continue
        try:
            attribute, value = base.parse_phrase(phrase)
        except (KeyError, UserError):
            return f"says '{phrase}', which the knowledge base does not know"
        said.setdefault(attribute, set()).add(value)
    if "subtype" in said:
        return f"names two classes: '{head}' and '{base.phrase('subtype', sorted(said['subtype'])[0])}'"
    if said != {a: {str(one) for one in v} for a, v in row["attributes"].items() if v}:
        return "has attributes that differ from its prompt; change both or neither"
    reason = contradiction(base, {a: v for a, v in row["attributes"].items() if v})
    return f"is impossible: {reason.removesuffix('.')}" if reason else None
