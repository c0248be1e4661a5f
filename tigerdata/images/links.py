"""Links of image files to patient, examination and report by their names."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from kb import KnowledgeBase
from kb.errors import UserError
from tigerdata.images.frames import Refused
from tigerdata.sources.records import ImageRecord

# Name in a pattern -> field of the record. Other names stand for parts of a file name that link nothing.
FIELDS = {
    "patient": "patient_id", "exam": "exam_id", "report": "report_id", "label": "label", "plane": "plane",
    "cohort": "cohort",
}  # fmt: skip
_PLACE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class NamePattern:
    """A compiled pattern; `whole` says whether it reads the path below the set's folder or the file's name alone."""

    regex: re.Pattern[str]
    whole: bool

    def apply(self, record: ImageRecord, base: KnowledgeBase) -> ImageRecord:
        """Return the record with the fields its name states; what a table states of the file comes first.

        Raises Refused NAME_NOT_MATCHED, and NAME_UNKNOWN_PLANE for a plane that the vocabulary does not have. Where
        the pattern reads the folders, a folder's name is no class.
        """
        path = PurePosixPath(record.file)
        match = self.regex.fullmatch(path.as_posix() if self.whole else path.name)
        if match is None:
            raise Refused("NAME_NOT_MATCHED")
        found = {FIELDS[name]: value for name, value in match.groupdict().items() if name in FIELDS and value}
        if found.get("plane", "") not in ("", *base.attributes["sonogram_direction"].values):
            raise Refused("NAME_UNKNOWN_PLANE")
        if self.whole and record.label in path.parts[:-1]:
            record = replace(record, label=None)
        stated: dict[str, Any] = {field: value for field, value in found.items() if not getattr(record, field)}
        return replace(record, **stated)


def compile_pattern(text: str) -> NamePattern:
    """Read `{patient}_{exam}_{view}.png`, or a regular expression with named groups `(?P<patient>…)`.

    A place in braces takes no slash and none of the characters that the pattern has between its places: a name that
    could be cut in two ways does not match, for a wrong patient is worse than none. Raises UserError for a pattern
    that is no pattern or that names nothing to link by.
    """
    if "(?P<" in text:
        source = text
    else:
        parts = _PLACE.split(text)
        between = "".join(sorted(set("".join(parts[::2])) - set("{}")))
        marks = "".join(re.escape(c) for c in between if not c.isalnum()) + "/"
        names = parts[1::2]
        if len(set(names)) < len(names):
            raise UserError(f"--pattern '{text}' has a name twice; give each place a name of its own.")
        source = "".join(
            f"(?P<{part}>[^{marks}]+)" if number % 2 else re.escape(part) for number, part in enumerate(parts)
        )
    try:
        regex = re.compile(source)
    except re.error as error:
        raise UserError(
            f"--pattern '{text}' is no valid pattern ({error}); see `tigerdata ingest images --help`."
        ) from error
    if not set(regex.groupindex) & set(FIELDS):
        raise UserError(
            f"--pattern '{text}' links by nothing; name one of {', '.join(FIELDS)}, as in '{{patient}}_{{n}}.png'."
        )
    return NamePattern(regex, "/" in text)
