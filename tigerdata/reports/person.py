"""Sex and age of a patient as an export writes them."""

from __future__ import annotations

import re

MAX_AGE = 90.0  # an exact age beyond it points to few people (HIPAA Safe Harbor)
OLDEST = 130.0  # beyond it a number is no age
SEX = {
    "男": "male",
    "男性": "male",
    "女性": "female",
    "m": "male",
    "male": "male",
    "女": "female",
    "f": "female",
    "female": "female",
}


def sex(text: str) -> str | None:
    """male or female, None for anything else."""
    return SEX.get(text.strip().lower())


def age(text: str) -> float | None:
    """Years, at most `MAX_AGE`, of "58", "58岁" or "58 years"; None for anything else."""
    match = re.match(r"\s*(\d{1,3}(?:\.\d+)?)\s*(岁|years?|y|Y|$)", text)
    years = float(match[1]) if match else OLDEST + 1
    return min(years, MAX_AGE) if years <= OLDEST else None
