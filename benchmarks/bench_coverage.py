"""Density and coverage: memory at 30,000 x 2,048, and time beside prdc at a size that prdc can hold.

prdc is no dependency of ours: `--peer-python` names the Python of an environment that has it (without, only our own
figures are shown). Each call is timed in a process of its own, ours and theirs in turn, with all threads that the
process may use; medians are compared. Features are float32, as networks give them, and the numbers must be equal.
"""

import argparse
import json
import subprocess
import sys

import numpy as np
from inputs import measured

MUST_BYTES, MUST_FACTOR, MUST_EQUAL = 2e9, 2.0, 1e-6

ARRAYS = """
import json, sys, time
import numpy as np
n, d = int(sys.argv[1]), int(sys.argv[2])
rng = np.random.default_rng(0)
real = rng.standard_normal((n, d), np.float32)
fake = rng.standard_normal((n, d), np.float32)
fake *= np.float32(1.003)
"""
OURS = (
    ARRAYS
    + """
from tigergen.metrics import density_coverage
begin, busy = time.perf_counter(), time.process_time()
found = density_coverage(real, fake, k=5)
print(json.dumps({'seconds': time.perf_counter() - begin, 'busy': time.process_time() - busy, **found}))
"""
)
THEIRS = (
    ARRAYS
    + """
from prdc import compute_prdc
begin, busy = time.perf_counter(), time.process_time()
found = compute_prdc(real, fake, nearest_k=5)
print(json.dumps({'seconds': time.perf_counter() - begin, 'busy': time.process_time() - busy,
                  **{k: float(v) for k, v in found.items()}}))
"""
)


def main() -> None:
    """Print what was measured and whether it is enough."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", help="Python of an environment with prdc")
    parser.add_argument("--large", type=int, default=30_000, help="rows a set for the memory; 0: leave it out")
    parser.add_argument("--n", type=int, default=6_000, help="rows a set for the comparison")
    parser.add_argument("--features", type=int, default=2_048)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(f"normal features, float32, {args.features} columns, k = 5, numpy {np.__version__}")
    enough = []
    if args.peer_python:
        ours, theirs = [], []
        for _ in range(args.rounds):
            ours.append(measured(OURS, args.n, args.features))
            done = subprocess.run([args.peer_python, "-c", THEIRS, str(args.n), str(args.features)],
                                  capture_output=True, text=True, check=True)  # fmt: skip
            theirs.append(json.loads(done.stdout.splitlines()[-1]))
        names = ("precision", "recall", "density", "coverage")
        apart = max(abs(ours[0][name] - theirs[0][name]) for name in names)
        mine, other = (float(np.median([r["seconds"] for r in rows])) for rows in (ours, theirs))
        print(f"N = {args.n:,}: ours {mine:.2f} s, prdc {other:.2f} s, factor {other / mine:.2f}; apart {apart:.1e}")
        work = [float(np.median([r["busy"] for r in rows])) for rows in (ours, theirs)]
        print(f"  processor seconds: ours {work[0]:.2f}, prdc {work[1]:.2f}, factor {work[1] / work[0]:.2f}")
        print("  " + ", ".join(f"{name} {ours[0][name]:.4f}" for name in names))
        enough += [other / mine >= MUST_FACTOR, apart <= MUST_EQUAL]
    else:
        print("prdc is not compared: give --peer-python")
    if args.large:
        large = measured(OURS, args.large, args.features)
        enough.append(large["peak"] < MUST_BYTES)
        print(
            f"N = {args.large:,}: {large['seconds']:.0f} s, whole process with both sets {large['peak'] / 1e9:.2f} GB"
        )
    print(f"must: < {MUST_BYTES / 1e9:.0f} GB, >= {MUST_FACTOR} x prdc, equal to {MUST_EQUAL}: "
          f"{'enough' if all(enough) else 'NOT ENOUGH'}")  # fmt: skip
    sys.exit(not all(enough))


if __name__ == "__main__":
    main()
