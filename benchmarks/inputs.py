"""What the benchmarks share: real or simulated report texts, how much memory a process holds, the clock."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path


def real_texts(folder: Path, organ: str = "thyroid") -> list[str]:
    """The texts of a folder of real data, repetitions included; `_2DS_`, `_SCM_` … stand where sizes were."""
    parts = json.loads((folder / "reports_zh" / f"{organ}.json").read_text(encoding="utf-8"))
    return [row["finding"] for rows in parts.values() for row in rows]


def simulated_texts(images: int, seed: int, languages: Sequence[str] = ("zh", "en")) -> list[str]:
    """Findings and impression of simulated patients, `images` of each of three classes."""
    import numpy as np

    from tigerdata.phantom.corpus import patients, read_settings
    from tigerdata.phantom.reporting import write_report
    from tigerdata.reports.joined import join_columns

    corpus = read_settings({"counts": {"train": dict.fromkeys(("benign", "PTC", "FTC"), images)}, "seed": seed})
    texts: list[str] = []
    for patient, frames in patients(corpus):
        for visit in {id(v): v for v, _ in frames}.values():
            rng = np.random.default_rng(len(texts))
            report = write_report(patient, visit, visit.planes, tuple(languages), corpus.stated_fraction, rng)
            texts.append(join_columns(report.findings, report.impression))
    return texts


def measured(code: str, *arguments: object, env: dict[str, str] | None = None) -> dict[str, float]:
    """Run Python code in a process of its own: the JSON of its last line, and `peak`, bytes it and its workers held."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True, env=env
    )
    peak = 0
    while process.poll() is None:
        peak = max(peak, resident(process.pid))
        time.sleep(0.05)
    assert process.stdout is not None
    if process.returncode:
        raise SystemExit("the measured program failed")
    return {"peak": peak, **json.loads(process.stdout.read().splitlines()[-1])}


def resident(pid: int) -> int:
    """Bytes that a process and its descendants hold in memory; pages that they share count for each of them."""
    total, page = 0, os.sysconf("SC_PAGE_SIZE")
    family = {pid}
    for status in sorted(Path("/proc").glob("[0-9]*/stat"), key=lambda p: int(p.parent.name)):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        if int(status.parent.name) in family or int(fields[1]) in family:
            family.add(int(status.parent.name))
            total += int(fields[21]) * page
    return total


def high_water() -> int:
    """Most bytes that this process has held in memory so far (VmHWM)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def clock(threads: int) -> float:
    """Seconds: of this process where it has one thread, which another job does not stretch, else of the wall."""
    return time.process_time() if threads == 1 else time.perf_counter()
