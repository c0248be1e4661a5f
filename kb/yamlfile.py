"""Reading of YAML files that people edit: every value knows its line, and a mistake is one sentence with it."""

import re
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from kb.errors import UserError

Key = tuple[str | int, ...]


class Lines:
    """Where each key path of the files read so far stands: `at(path)` gives "file:line"."""

    def __init__(self) -> None:
        self._places: dict[Key, str] = {}

    def add(self, path: Path, node: yaml.Node | None, key: Key = ()) -> None:
        """Record the lines of `node` and of everything below it."""
        if node is None:
            return
        self._places.setdefault(key, f"{path.name}:{node.start_mark.line + 1}")
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for name, value in node.value:
                place = f"{path.name}:{name.start_mark.line + 1}"
                if name.value in seen:
                    raise UserError(f"'{name.value}' is given twice at {place}; keep one of the two.")
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


def read_yaml(path: Path, lines: Lines) -> dict[str, Any]:
    """Read a YAML mapping and record its lines.

    Raises UserError with file and line if the file is missing, is not YAML or is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except FileNotFoundError:
        raise UserError(
            f"there is no file {path.name} in {path.parent}; give the name of a domain that exists."
        ) from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{path.name}:{line} is not YAML ({error.problem}); correct this line.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path.name}:1 must hold `name: value` lines; correct the file.")
    lines.add(path, node)
    return content


def expand(pattern: str) -> list[str]:
    """All texts that a pattern with "(a|b|)" alternatives stands for, in order.

    >>> expand("(is |)clear")
    ['is clear', 'clear']
    """
    parts = re.split(r"\(([^()]*)\)", pattern)
    choices = [part.split("|") if index % 2 else [part] for index, part in enumerate(parts)]
    return list(dict.fromkeys("".join(choice) for choice in product(*choices)))
