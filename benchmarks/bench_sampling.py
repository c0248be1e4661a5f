"""Sampling: speed beside diffusers' MultiControlNet pipeline, speed and fidelity of settings, share of the peak.

    python benchmarks/bench_sampling.py                        tiny shape beside diffusers, share of the peak
    python benchmarks/bench_sampling.py --sd [--pixels 512]    the shape of Stable Diffusion 1.5 beside diffusers
    python benchmarks/bench_sampling.py --workspace DIR        the default beside DDIM 50, on a workspace's fine model
                                [--images N] [--try '{"steps": 10}' ...]

Every comparison runs its sides in turn, so that a load of the machine falls on all of them, and gives the ratio of
medians; with one thread (OMP_NUM_THREADS=1) in seconds of the process, else of the wall. Exit code 1 when a bound is
missed.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Mapping
from typing import Any

from sampling_fidelity import compare_settings
from sampling_peers import Pair, difference, sd_model, tiny_model
from sampling_share import clock, shares

MUST_PEER, MUST_DEFAULT, SAME = 1.3, 6.0, 1e-4


def interleaved(sides: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each side; the sides take turns, after one turn that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats + 1):
        for name, side in sides.items():
            begin = clock()
            side()
            if turn:
                seconds[name].append(clock() - begin)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def peers(pipe: Any, batch: int, steps: int, repeats: int, compiler: str | None = None) -> bool:
    """Print speed and difference beside diffusers; True when both bounds hold."""
    pair = Pair(pipe, batch, steps)
    pipe.prepare(compiler)
    begin = clock()
    pair.ours()
    first = clock() - begin
    apart = difference(pair.ours(), pair.theirs(True))
    sides = {"ours": pair.ours, "guess": lambda: pair.theirs(True), "default": lambda: pair.theirs(False)}
    seconds = interleaved(sides, repeats)
    size, ours = pipe.config["image_size"], seconds["ours"]
    print(f"{size} px, batch {batch}, {steps} steps of DPM-Solver++, guidance at each, {repeats} repeats:")
    print(f"  ours, mode sum                             {batch / ours:8.3f} images/s, the first call {first:.1f} s")
    for name, title in (("guess", "guess mode (no control unguided)"), ("default", "default (control in both halves)")):
        print(f"  diffusers, {title:32} {batch / seconds[name]:8.3f} images/s: ours {seconds[name] / ours:.2f}x")
    print(f"  relative difference of the final latents to guess mode: {apart:.1e}")
    return apart < SAME and seconds["default"] / ours >= MUST_PEER


def main() -> None:
    """Run what was asked for; exit code 1 when a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sd", action="store_true")
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--compiler", help="of torch.compile, such as inductor: ours compiled, diffusers not")
    parser.add_argument("--workspace")
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--try", dest="tries", action="append", type=json.loads)
    options = parser.parse_args()
    if options.images <= 52:
        parser.error("--images must be above 52, the number of texture features of the Fréchet distance")
    if options.workspace:
        rows = compare_settings(options.workspace, options.images, options.tries or [{}])
        print(*(json.dumps(row) for row in rows), sep="\n")
        good = options.tries is not None or rows[-1]["speed"] >= MUST_DEFAULT
    elif options.sd:
        good = peers(
            sd_model(options.pixels), options.batch or 1, options.steps or 2, options.repeats or 3, options.compiler
        )
    else:
        good = peers(tiny_model(), options.batch or 8, options.steps or 15, options.repeats or 7, options.compiler)
        print(json.dumps(shares(tiny_model())))
    if not good:
        raise SystemExit("a bound is missed")


if __name__ == "__main__":
    main()
