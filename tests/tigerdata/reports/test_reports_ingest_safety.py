"""The ingest as a whole: all or nothing when killed, the same whatever the number of processes, bounded and linear."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tigerdata import processes
from tigerdata.identity import KEY_FILE
from tigerdata.reports import work
from tigerdata.reports.ingest import ingest_reports
from tigerdata.workspace import Workspace

ROOT = Path(__file__).resolve().parents[3]
SIDES, ECHOES = ("左叶", "右叶"), ("低回声", "等回声", "高回声", "无回声")


def write_reports(path: Path, count: int) -> Path:
    """Reports of which no two are alike, with personal data in some and a broken row now and then."""
    with path.open("w", encoding="utf-8") as file:
        for k in range(count):
            text = f"{SIDES[k % 2]}上极见一{ECHOES[k % 4]}结节，大小约{3 + k % 30}×{2 + k % 20}mm，边界清，未见钙化。"
            who = f"姓名：王小明 电话：1380013{k % 10000:04d}。" if k % 7 == 0 else ""
            row = {"id": k, "patient_id": f"p{k // 2}", "exam_id": f"e{k}", "sex": "女", "findings": who + text}
            file.write("{broken\n" if k % 50 == 49 else json.dumps(row, ensure_ascii=False) + "\n")
    return path


def dump(ws: Workspace) -> dict[str, list[tuple[Any, ...]]]:
    """Every table, its rows sorted."""
    with ws.connect(read_only=True) as con:
        names = [row[0] for row in con.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()]
        return {name: con.execute(f'FROM "{name}" ORDER BY ALL').fetchall() for name in names}


def test_the_number_of_processes_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One and two processes, each twice, give the same rows; DuckDB's own threads do not keep the order of storing."""
    monkeypatch.setattr(work, "BATCH", 40)
    file, corrected = write_reports(tmp_path / "reports.jsonl", 400), tmp_path / "corrected.jsonl"
    found = []
    for number, workers in enumerate((1, 2, 1, 2)):
        ws = Workspace.create(tmp_path / f"ws{number}")
        if number:  # pseudonyms are the same under the same key only
            shutil.copy(tmp_path / "ws0" / KEY_FILE, ws.path / KEY_FILE)
        counts = ingest_reports(ws, file, workers=workers)
        assert (counts["rows"], counts["reports"], counts["rejected"]) == (400, 392, 8)
        lines = [json.loads(line) for line in file.read_text("utf-8").splitlines() if line.startswith('{"')]
        for line in lines[:90]:  # corrections, among many that are known
            line["findings"] += "内见分隔。"
        corrected.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
        assert ingest_reports(ws, corrected, workers=workers)["corrected"] == 90
        counts.pop("rejects")
        found.append((counts, dump(ws)))
        assert not list(ws.path.glob(".ingest-*"))
    assert len(found[0][1]["findings"]) > 2000
    assert found[0] == found[1] == found[2] == found[3]


KILLED = """
import sys
from tigerdata.reports import commit, work
from tigerdata.reports.ingest import ingest_reports
from tigerdata.workspace import Workspace

work.BATCH = 40
original = commit.note_ingest

def slow(con, *arguments):
    # Everything is written and nothing committed: the worst moment.
    open(sys.argv[3], "w").write("written")
    import time
    time.sleep(float(sys.argv[4]))
    return original(con, *arguments)

commit.note_ingest = slow
if __name__ == "__main__":
    ingest_reports(Workspace.open(sys.argv[1]), sys.argv[2], workers=2)
"""


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def children(pid: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(status.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
@pytest.mark.parametrize("moment", ["parsing", "before the commit"])
def test_kill_9_leaves_all_or_nothing(tmp_path: Path, moment: str) -> None:
    ws = Workspace.create(tmp_path / "ws")
    file = write_reports(tmp_path / "reports.jsonl", 4000)
    (tmp_path / "job.py").write_text(KILLED, encoding="utf-8")
    flag = tmp_path / "flag"
    words = [sys.executable, "job.py", str(ws.path), str(file), str(flag), "600"]
    process = subprocess.Popen(words, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    end = time.monotonic() + 300
    reached = (lambda: list(ws.path.glob(".ingest-*/findings-*"))) if moment == "parsing" else flag.exists
    while not reached() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    workers = children(process.pid)
    assert reached() and process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    with ws.connect(read_only=True) as con:
        for table in ("reports", "nodules", "findings", "patients", "ingests"):
            assert con.execute(f"SELECT count(*) FROM {table}").fetchall() == [(0,)]
    # The workers do not outlive their parent, and the next run clears the parts away.
    while any(map(alive, workers)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(alive, workers))
    assert list(ws.path.glob(".ingest-*"))
    small = write_reports(tmp_path / "small.jsonl", 200)
    counts = ingest_reports(ws, small)
    assert (counts["rows"], counts["reports"], counts["rejected"]) == (200, 196, 4)
    assert not list(ws.path.glob(".ingest-*"))
    assert ingest_reports(ws, small)["reports"] == 0


def test_two_programs_that_read_the_same_file_store_it_once(tmp_path: Path) -> None:
    """The second one waits for the lock of the first and finds its rows there."""
    ws = Workspace.create(tmp_path / "ws")
    file = write_reports(tmp_path / "reports.jsonl", 300)
    (tmp_path / "job.py").write_text(KILLED, encoding="utf-8")
    flag = tmp_path / "flag"
    words = [sys.executable, "job.py", str(ws.path), str(file), str(flag), "3"]
    first = ingest_reports(ws, write_reports(tmp_path / "none.jsonl", 1))  # makes the key
    assert first["reports"] == 1
    running = [
        subprocess.Popen(words, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    assert [(process.communicate(timeout=300)[1], process.returncode) for process in running] == [(b"", 0), (b"", 0)]
    with ws.connect(read_only=True) as con:
        assert con.execute("SELECT count(*), count(DISTINCT report_id) FROM reports").fetchall() == [(294, 294)]
        assert con.execute("SELECT count(*) FROM ingests").fetchall() == [(2,)]


def test_batches_do_not_pile_up(tmp_path: Path) -> None:
    """However long the file, only a few batches are read ahead of the workers."""
    read: list[int] = []
    done: list[int] = []

    def tasks() -> Any:
        for k in range(20):
            read.append(k)
            yield k

    def batch_done(_: Any) -> None:
        done.append(len(read))

    assert list(processes.batches(range(5), 2)) == [[0, 1], [2, 3], [4]]

    class Pool:
        """Runs at once, in this process, and remembers how far reading was ahead."""

        def __init__(self, *_: Any, **__: Any) -> None: ...

        def submit(self, function: Any, job: Any, number: int, batch: Any) -> Any:
            class Future:
                def result(self) -> Any:
                    return number

            return Future()

        def shutdown(self, **_: Any) -> None: ...

    original = processes.ProcessPoolExecutor
    processes.ProcessPoolExecutor = Pool  # type: ignore[assignment,misc]
    try:
        work.run(work.Job("thyroid", "standard", tmp_path), tasks(), 2, batch_done, size=1)
    finally:
        processes.ProcessPoolExecutor = original  # type: ignore[misc]
    assert done[:3] == [7, 8, 9] and len(done) == 20
