"""Several processes give the bytes that one gives."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kb.errors import UserError
from tigerdata.reports import pool
from tigerdata.reports.parser import parse_many
from tigerdata.reports.stream import parse_stream

PLACES = ["左叶上极", "右叶下极", "峡部", "双叶"]
REPORTS = [
    f"{place}见{many}低回声结节，大小约{a}×{b}mm，边界{margin}，{calcium}。TI-RADS {a % 5 + 1}类。"
    for a, (place, many) in enumerate([(p, m) for p in PLACES for m in ("一", "多个")] * 6, start=3)
    for b, margin, calcium in ((2, "清", "未见钙化"), (4, "不清", "可疑微钙化"))
]
ROWS = [{"id": str(i), "text": text} for i, text in enumerate(REPORTS * 8)]


def bytes_of(workers: int) -> bytes:
    return "\n".join(json.dumps(r, ensure_ascii=False) for r in parse_many(ROWS, workers=workers)).encode()


def test_one_and_two_processes_give_the_same_bytes_twice() -> None:
    assert len(ROWS) > 2 * pool.PART
    one = bytes_of(1)
    assert bytes_of(2) == one
    assert bytes_of(2) == bytes_of(1) == one


def test_rows_are_taken_as_they_are_needed() -> None:
    taken = 0

    def source() -> Iterator[dict[str, Any]]:
        nonlocal taken
        for row in ROWS * 20:
            taken += 1
            yield row

    results = parse_many(source(), workers=2)
    assert next(results)["id"] == "0"
    assert taken <= 2 * pool.AHEAD * pool.PART
    results.close()  # type: ignore[attr-defined]


def test_an_error_of_a_row_is_raised_in_order() -> None:
    found = parse_many([{"id": "1", "text": "左叶"}, {"id": "2"}])
    assert next(found)["id"] == "1"
    with pytest.raises(KeyError):
        next(found)


def _die(rows: list[Any], **_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "parse_part", _die)
    with pytest.raises(UserError, match="fewer workers"):
        list(parse_many(ROWS, workers=2))


def test_parsing_leaves_torch_alone_and_importable() -> None:
    code = (
        "import sys, importlib.util as u; from tigerdata.reports.parser import parse; parse('Solid nodule.'); "
        "assert 'torch' not in sys.modules; assert u.find_spec('torch') is None or __import__('torch')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_table_is_no_report(tmp_path: Path) -> None:
    table = tmp_path / "reports.csv"
    table.write_text("findings\nsolid nodule\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"reports\.csv is a table.*tigerdata ingest reports"):
        next(parse_stream(str(table)))
