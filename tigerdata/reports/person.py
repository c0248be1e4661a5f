"""Patients: sex and age as an export writes them, and their rows in the database."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

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


def fill_patients(con: duckdb.DuckDBPyConnection) -> int:
    """Move the temporary table `_patients` into the patients: what is known of one stays, gaps are filled.

    Its columns are those of `patients` and `differs`: the source itself names two sexes. Returns how many patients come
    with two different sexes.
    """
    row = con.execute(
        """SELECT count(*) FROM _patients n LEFT JOIN patients p USING (patient_id)
           WHERE n.differs OR lower(left(p.sex, 1)) <> lower(left(n.sex, 1))"""
    ).fetchone()
    con.execute(
        """INSERT INTO patients BY NAME SELECT * EXCLUDE (differs) FROM _patients
           ON CONFLICT (patient_id) DO UPDATE SET sex = coalesce(patients.sex, excluded.sex),
                                                  age = coalesce(patients.age, excluded.age)"""
    )
    con.execute("DROP TABLE _patients")
    return row[0] if row else 0
