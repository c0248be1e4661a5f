"""One leak of each kind, planted in copies of a clean workspace and run: each export must be refused, by name.

`python benchmarks/planted_leaks.py` prints what was planted, the two sides that the refusal must name and whether it
did, then exports the clean pair, which must pass. Exit code 1 when one is not as it must be. Half a minute.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main() -> int:
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    from tests.planted_leaks import COUNTS, PLANTS, clean, refused
    from tigerdata.export import export
    from tigerdata.leaks import QUERIES, LeakError

    start, wrong = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        ws, run = clean(folder)
        print(f"workspace: {COUNTS}; 12 generated images; {len(QUERIES)} queries")
        print(f"{'planted':48} {'refused as':74} {'named':36} as it must be")
        for number, (what, (kind, plant)) in enumerate(PLANTS.items()):
            copy = folder / f"plant-{number}"
            copy.mkdir()
            named, error = refused(ws, run, plant, copy)
            right = (
                isinstance(error, LeakError)
                and error.kind == kind
                and named in error.pairs
                and not (copy / "set").exists()
            )
            wrong += not right
            found = error.kind if isinstance(error, LeakError) else "exported"
            print(f"{what:48} {found:74} {' – '.join(named):36} {'yes' if right else 'NO'}")
        try:
            checks = export(ws, folder / "set", run, draft=True)["checks"]
        except LeakError as error:
            checks, wrong = [str(error)], wrong + 1
        print(f"{'nothing':48} {f'exported, {len(checks)} checks passed':74}")
    verdict = "all as they must be" if not wrong else f"{wrong} NOT as they must be"
    print(f"{len(PLANTS)} planted leaks and a clean set: {verdict} ({time.monotonic() - start:.0f} s)")
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
