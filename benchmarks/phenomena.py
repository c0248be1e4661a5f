"""The sentence-level phenomena of a file of report cases, each read as part of a nodule's description.

Usage: python benchmarks/phenomena.py CASES.yaml

A sentence that names no nodule of its own is said of one: "There is a nodule in the left lobe. It is ...". Every key of
`expect` must be equal, `null` means absent; pathology is read as a pathology text. Where two values are left open
(`<attribute>_alt`), either order counts.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from tigerdata.reports.parser import parse
from tigerdata.reports.pathology import parse_pathology

BEFORE = {"zh": "左叶上极见一结节，", "en": "There is a nodule in the left lobe. It shows "}
# The subtypes of the contract; the cases name entities more finely.
ENTITY = {"oncocytic_carcinoma": "other_malignant"}


def met(expect: dict[str, Any], nodule: dict[str, Any]) -> bool:
    """Whether a nodule says what is expected of it."""
    for name, wanted in expect.items():
        found = nodule.get(name)
        if name == "location":
            if any((found or {}).get(part) != value for part, value in wanted.items()):
                return False
        elif name == "tirads":
            system = str((found or {}).get("system", "")).removesuffix("-TIRADS")
            if (system, (found or {}).get("category")) != (wanted["system"], wanted["category"]):
                return False
        elif f"{name}_alt" in expect:
            if {found, nodule.get(f"{name}_alt")} != {wanted, expect[f"{name}_alt"]}:
                return False
        elif not name.endswith("_alt") and (found or None) != (wanted or None):
            return False
    return True


def check(case: dict[str, Any]) -> bool:
    """Whether one case holds."""
    expect, text = case["expect"], case["text"]
    if "pathology" in expect:
        wanted = expect["pathology"][0]["value"]
        return bool(parse_pathology(text)["subtype"] == ENTITY.get(wanted, wanted))
    if expect.get("nodules") == []:
        return not parse(text)["nodules"]
    return any(met(expect, n) for t in (text, BEFORE[case["lang"]] + text) for n in parse(t)["nodules"])


def main() -> None:
    cases = yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))["phenomena"]
    failed = [case["id"] for case in cases if not check(case)]
    print(f"{len(cases) - len(failed)} of {len(cases)} phenomena; not met: {', '.join(failed) or 'none'}")


if __name__ == "__main__":
    main()
