"""What share of the clinical words inside nodule clauses of the real texts is read, and the words that are not.

Usage: TIGER_REAL_DATA=DIR python benchmarks/unread_words.py
"""

from __future__ import annotations

import os
from pathlib import Path

from inputs import real_texts

from tigerdata.reports.parser import parse
from tigerdata.reports.unread import coverage


def main() -> None:
    folder = Path(os.environ["TIGER_REAL_DATA"])
    for organ in ("thyroid", "breast"):
        texts = real_texts(folder, organ)
        rows = [(text, row) for text in texts for row in parse(text, organ)["evidence"]]
        wrong = sum(text[row["start"] : row["end"]] != row["surface"] for text, row in rows)
        found = coverage(texts, organ)
        print(f"{organ}: {found.texts} texts, {len(rows)} evidence rows, {wrong} with wrong offsets")
        print(f"  {found.share:.4f} of {found.units} clinical units read; the 30 most frequent unread words:")
        print("  " + ", ".join(f"{word} {count}" for word, count in found.words.most_common(30)))


if __name__ == "__main__":
    main()
