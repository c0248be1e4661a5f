"""Parse speed of one process in characters a second of CPU time, beside medspaCy on the same English texts.

Usage: python benchmarks/bench_parse.py [--gold CASES.yaml] [--medspacy PYTHON]

Chinese: the real thyroid texts of TIGER_REAL_DATA, each once; without them simulated reports. English: the English
texts of CASES.yaml repeated; without it simulated reports. "first" is the first pass over the texts, with empty caches;
"again" the best of the next passes; "new sizes" one more pass with other numbers in every text, as a corpus has.
CPU time, not wall-clock: neighbours on the machine and `nice` change the clock, not the work. PYTHON is that of an
environment with medspaCy, which cannot live beside this project's spaCy.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from inputs import real_texts, simulated_texts

REPEATS = 30
MEDSPACY = """
import json, sys, time, medspacy
texts = json.load(sys.stdin)
nlp = medspacy.load()
nlp(texts[0])
started = time.process_time()
for text in texts:
    nlp(text)
print(json.dumps({"version": getattr(medspacy, "__version__", "?"), "seconds": time.process_time() - started}))
"""


def chinese() -> tuple[str, list[str]]:
    """Name and texts of the Chinese input."""
    folder = os.environ.get("TIGER_REAL_DATA")
    if not folder:
        return "simulated", simulated_texts(60, 7, ("zh",))
    return "real thyroid texts", real_texts(Path(folder))


def english(gold: Path | None) -> tuple[str, list[str]]:
    """Name and texts of the English input."""
    if gold is None:
        return "simulated", simulated_texts(60, 7, ("en",))
    cases = yaml.safe_load(gold.read_text(encoding="utf-8"))["reports"]
    return f"gold texts x{REPEATS}", [case["text"] for case in cases if case["lang"] == "en"] * REPEATS


def with_new_sizes(texts: list[str]) -> list[str]:
    """The texts with other numbers in their sizes; a masked size becomes one."""
    draw = random.Random(3)

    def size(_: re.Match[str]) -> str:
        return f"{draw.randint(2, 60)}x{draw.randint(2, 60)}mm"

    return [re.sub(r"_[23]DS_|\d+(?:\.\d+)? ?[x×] ?\d+(?:\.\d+)? ?(?:mm|cm)", size, text) for text in texts]


def seconds(texts: list[str]) -> float:
    """Time of one pass."""
    from tigerdata.reports.parser import parse

    started = time.process_time()
    for text in texts:
        parse(text)
    return time.process_time() - started


def measure(name: str, texts: list[str]) -> dict[str, Any]:
    """Million characters a second of the first pass, the best of three more, and one with new sizes."""
    from tigerdata.reports.parser import parse

    parse("左叶 left")  # the vocabulary is read before the clock runs
    size = sum(map(len, texts)) / 1e6
    changed = with_new_sizes(texts)
    first = seconds(texts)
    again = min(seconds(texts) for _ in range(3))
    new = seconds(changed)
    return {
        "input": name,
        "texts": len(texts),
        "distinct": len(set(texts)),
        "characters": int(size * 1e6),
        "first": round(size / first, 3),
        "again": round(size / again, 3),
        "new sizes": round(sum(map(len, changed)) / 1e6 / new, 3),
    }


def medspacy(python: str, texts: list[str]) -> dict[str, Any]:
    """Million characters a second of medspaCy's default pipeline."""
    done = subprocess.run([python, "-c", MEDSPACY], input=json.dumps(texts), capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return {"version": found["version"], "speed": round(sum(map(len, texts)) / 1e6 / found["seconds"], 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gold", type=Path)
    parser.add_argument("--medspacy", metavar="PYTHON")
    args = parser.parse_args()
    name, texts = english(args.gold)
    rows = {"zh": measure(*chinese()), "en": measure(name, texts)}
    print(f"Python {sys.version.split()[0]}, one process, million characters a second of CPU time")
    for language, row in rows.items():
        print(f"  {language}  {json.dumps(row, ensure_ascii=False)}")
    if args.medspacy:
        distinct = list(dict.fromkeys(texts))
        other = medspacy(args.medspacy, distinct)
        print(f"  medspaCy {other['version']}, default pipeline, {len(distinct)} distinct texts: {other['speed']}")
        for column in ("first", "again", "new sizes"):
            print(f"  ratio to medspaCy, en, {column}: {rows['en'][column] / other['speed']:.1f}")
        print(f"  zh characters a second over medspaCy's on English: {rows['zh']['first'] / other['speed']:.1f}")


if __name__ == "__main__":
    main()
