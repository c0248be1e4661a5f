"""Risk categories ("C-TIRADS 4A类", "ACR TI-RADS: TR5", "U3") in normalised text."""

import re
from dataclasses import dataclass
from functools import lru_cache

from kb.cues import load_cues

ROMAN = {"i": "1", "ii": "2", "iii": "3", "iv": "4", "v": "5", "vi": "6"}
CHINESE = {"一": "1", "二": "2", "三": "3", "四": "4", "五": "5", "六": "6"}
LEVEL = r"(?:[1-6](?!\d|\.\d)|(?:iii|ii|iv|vi|i|v)(?![d-z])|[一二三四五六](?=类|级))"
CATEGORY = rf"(?P<level>{LEVEL})\s?(?P<letter>[abc](?![a-z]))?\s*(?:类|级)?"
# Words that stand between the name of the system and the category; "total points: 12" is not a category.
FILLER = (
    r"(?:[\s:,()]|2017|2020|分类|分级|评分|风险|级别|为|考虑|约|等级|category|risk|score|level|grade|class"
    r"|tr(?=\s?[1-5]))*"
)
BARE = re.compile(r"(?<![\d.,\-~至a-z])(?P<level>[1-6])\s?(?P<letter>[abc])?\s?(?:类|级)(?!型)")
RANGE_AFTER = re.compile(r"^\s*[-~至/或]\s*[1-6][abc]?")
RANGE_BEFORE = re.compile(r"[1-6][abc]?\s*[-~至/或]\s*$")


@dataclass(frozen=True, slots=True)
class Category:
    """A risk category: canonical system, upper-case category, normalised span."""

    system: str
    category: str
    start: int
    end: int

    @property
    def span(self) -> tuple[int, int]:
        """Normalised (start, end)."""
        return self.start, self.end


@lru_cache(maxsize=4)
def _patterns(domain: str) -> list[tuple[str, re.Pattern[str]]]:
    cues = load_cues(domain)
    category = CATEGORY.replace("1-6", cues.rules.levels, 1)
    return [(name, re.compile(rf"(?:{pattern.pattern}){FILLER}{category}")) for name, pattern in cues.systems.items()]


def find_categories(text: str, domain: str = "thyroid") -> list[Category]:
    """Categories in order; a range such as "3-4A" states no single category and is left out."""
    found: list[Category] = []
    if not any(hint in text for hint in load_cues(domain).tirads.hints):
        return found
    for name, pattern in [*_patterns(domain), ("unspecified", BARE)]:
        for match in pattern.finditer(text):
            start, end = match.span()
            ranged = RANGE_AFTER.match(text[end:]) or RANGE_BEFORE.search(text[:start])
            if ranged or any(start < other.end and other.start < end for other in found):
                continue
            level, letter = match["level"], match["letter"] or ""
            category = ROMAN.get(level, CHINESE.get(level, level)) + letter.upper()
            found.append(Category(name, category, start, end))
    return sorted(found, key=lambda category: category.start)
