"""Reading of YAML files that people edit: every value knows its line, and a mistake is one sentence with it."""

import re
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from kb.errors import UserError

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound="BaseModel")
Key = tuple[str | int, ...]


class Lines:
    """Where each key path of the files read so far stands: `at(path)` gives "file:line"."""

    def __init__(self) -> None:
        self._places: dict[Key, str] = {}

    def add(self, path: Path, node: yaml.Node | None, key: Key = (), extended: bool = False) -> None:
        """Record the lines of `node` and of everything below it.

        Raises UserError when a key stands twice, in one file or (at the top) in two files of a domain, unless this
        file is one that the file before it has `extended`.
        """
        if node is None:
            return
        self._places.setdefault(key, f"{path.name}:{node.start_mark.line + 1}")
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for name, value in node.value:
                place = f"{path.name}:{name.start_mark.line + 1}"
                if name.value in seen:
                    raise UserError(f"'{name.value}' is given twice at {place}; keep one of the two.")
                if not key and not extended and (name.value,) in self._places:
                    first = self._places[name.value,]
                    raise UserError(f"{place}: '{name.value}' is already given in {first}; keep one of the two.")
                seen.add(name.value)
                self._places.setdefault((*key, name.value), place)
                self.add(path, value, (*key, name.value))
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                self.add(path, value, (*key, index))

    def at(self, key: Key) -> str:
        """Place of `key`, or of its nearest recorded parent."""
        while key not in self._places and key:
            key = key[:-1]
        return self._places.get(key, "the knowledge base")


def read_yaml(path: Path, lines: Lines, extended: bool = False) -> dict[str, Any]:
    """Read a YAML mapping and record its lines.

    Raises UserError with file and line if the file is missing, is not UTF-8 or YAML, or is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except FileNotFoundError:
        raise UserError(
            f"there is no file {path.name} in {path.parent}; give the name of a domain that exists."
        ) from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise UserError(f"{path.name}:{line} is not UTF-8; save the file as UTF-8.") from None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise UserError(f"{path.name}:{line} holds a control character; remove it.") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{path.name}:{line} is not YAML ({error.problem}); correct this line.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path.name}:1 must hold `name: value` lines; correct the file.")
    lines.add(path, node, extended=extended)
    return content


def checked(model: type[M], content: Any, lines: Lines) -> M:
    """The content of a file as a model. Raises UserError, one sentence with file and line, where its shape is wrong."""
    from pydantic import ValidationError

    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise _mistake(lines, error) from None


def _mistake(lines: Lines, error: "ValidationError") -> UserError:
    """The first thing that the shape of a file gets wrong, as one sentence with file and line."""
    first = error.errors(include_url=False)[0]
    path: Key = tuple(part for part in first["loc"] if part != "[key]")
    name, inside = path[-1] if path else "file", ".".join(str(part) for part in path[:-1])
    within = f" in {inside}" if inside else ""
    kind, given = first["type"], first.get("input")
    if kind == "missing":
        what = f"'{name}' is missing{within}; add it"
    elif kind == "extra_forbidden":
        what = f"'{name}' is not known{within}; correct its name or its indentation"
    elif kind == "too_short":
        what = f"'{name}'{within} is empty; name at least one"
    elif kind == "tuple_type":
        what = f"'{name}'{within} must be a list; write it in [brackets]"
    elif kind in ("dict_type", "model_type", "model_attributes_type"):
        what = f"'{name}'{within} must hold `name: value` lines; check its indentation"
    elif kind == "string_type" and isinstance(given, (bool, int, float)):
        what = f"'{name}'{within} holds {given}, which YAML reads as no text; put the word in quotes"
    else:
        what = f"'{name}'{within}: {first['msg'][:1].lower()}{first['msg'][1:]}; correct it"
    return UserError(f"{lines.at(path)}: {what}.")


def expand(pattern: str) -> list[str]:
    """All texts that a pattern with "(a|b|)" alternatives stands for, in order.

    >>> expand("(is |)clear")
    ['is clear', 'clear']
    """
    parts = re.split(r"\(([^()]*)\)", pattern)
    choices = [part.split("|") if index % 2 else [part] for index, part in enumerate(parts)]
    return list(dict.fromkeys("".join(choice) for choice in product(*choices)))
