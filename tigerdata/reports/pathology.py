"""Pathology texts to one subtype: the entity that is named, not one that is denied or only a variant's name."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from kb.cues import load_cues
from tigerdata.reports.assertion import Scopes
from tigerdata.reports.clauses import Clause, split
from tigerdata.reports.text import normalise

def parse_pathology(text: str, domain: str = "thyroid") -> dict[str, Any]:
    raise NotImplementedError
