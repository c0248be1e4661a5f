"""The whole journey on the real DDTI set: `python examples/ddti/run.py DDTI_FOLDER OUT`; run it again to continue.

The data steps are calls of the library, the long steps are the commands that a user would type; each is shown.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from kb.errors import UserError
from kb.files import write_json
from tigerdata.images.ingest import ingest_images
from tigerdata.prompts import build_prompts
from tigerdata.splits import split
from tigerdata.workspace import Workspace
from tigergen.display import JourneyDisplay
from tigergen.stages import Journey, Stage

# DDTI has no pathology. TI-RADS 2, 3 and 4a (at most one suspicious sign) against 4b, 4c and 5 gives two classes of
# similar size, so that one of them can be made rare and compared with its own held-back images.
LABELS = {"2": "tr_low", "3": "tr_low", "4a": "tr_low", "4b": "tr_high", "4c": "tr_high", "5": "tr_high"}
TARGET = "tr_high"
ARMS = ("natural", "classical", "real")


def prepare(images: Path, out: Path, rare: int) -> dict[str, Any]:
    """Descriptors to findings, panels to frames, masks, prompts, and a split by patient with a class made rare."""
    ws = Workspace.create(out / "workspace", settings={"ddti": {"labels": LABELS}})
    taken = ingest_images(ws, images, source="ddti")
    figures = {
        "images": {k: v for k, v in taken.items() if k != "rejected"},
        "prompts": build_prompts(ws),
        "split": split(ws, val=0.15, test=0.25, rare={TARGET: rare}),
    }
    write_json(out / "data.json", figures)
    return figures


def stages(out: Path, a: argparse.Namespace) -> list[Stage]:
    """The long steps, as commands."""
    ws, run = str(out / "workspace"), str(out / "augmented")
    here = ("-w", ws)
    arm = ("--target", TARGET, "--seeds", str(a.seeds), "--iterations", str(a.iterations), *here)
    plan = str(out / "plan.json")
    known = [
        Stage("judge", "Train a judge on the real descriptors", ("tigergen", "train", "judge", *here)),
        Stage(
            "segmenter",
            "Train a segmenter on the masks, to measure whether generated nodules lie where they were asked for",
            ("tigergen", "train", "segmenter", "--epochs", str(a.segmenter_epochs), *here),
        ),
        Stage(
            "coarse",
            "Tiger, coarse stage",
            ("tigergen", "train", "coarse", "--set", f"coarse.steps={a.coarse_steps}", *here),
        ),
        Stage(
            "fine",
            "Tiger, fine stage",
            ("tigergen", "train", "fine", "--set", f"fine.steps={a.fine_steps}", *here),
            ("coarse",),
        ),
        Stage(
            "plan",
            f"Plan images of {TARGET} and of the other class",
            ("tigergen", "plan", "--target", TARGET, "--n", str(a.generated), "--out", plan, *here),
        ),
        Stage(
            "augment",
            "Generate, check, keep or replace",
            ("tigergen", "augment", "--plan", plan, "--out", run, *here),
            ("fine", "plan", "judge"),
        ),
        Stage(
            "export",
            "Export an image folder, after the leak check",
            ("tigerdata", "export", "--run", run, "--out", str(out / "dataset"), "--draft", *here),
            ("augment",),
        ),
        Stage(
            "evaluate",
            "Measure the generated images",
            ("tigergen", "evaluate", "--run", run, *here),
            ("augment", "segmenter"),
        ),
        *(Stage(f"arm-{x}", f"Classifiers: {x}", ("tigergen", "arms", "--arm", x, *arm)) for x in ARMS),
        Stage(
            "arm-generated",
            "Classifiers with generated images in both classes",
            ("tigergen", "arms", "--arm", "generated", "--run", run, *arm),
            ("augment",),
        ),
    ]
    report = Stage(
        "report",
        "Write the report",
        ("tigergen", "report", "--run", run, "--target", TARGET, "--out", str(out / "report.html"), *here),
        ("evaluate", "export", "arm-generated", *(f"arm-{x}" for x in ARMS)),
    )
    return [*known, report]


def main() -> int:
    """Parse the arguments, run or continue, write the verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, help="the DDTI folder: <patient>_<n>.a.jpg, .b.jpg and labels.csv")
    parser.add_argument("out", type=Path, help="folder of workspace, data set and report")
    parser.add_argument("--rare", type=int, default=30, help=f"training images that {TARGET} keeps")
    parser.add_argument("--coarse-steps", type=int, default=600)
    parser.add_argument("--fine-steps", type=int, default=800)
    parser.add_argument("--segmenter-epochs", type=int, default=60)
    parser.add_argument("--generated", type=int, default=200, help="generated images a class")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--iterations", type=int, default=400)
    a = parser.parse_args()
    out = a.out.resolve()
    try:
        figures = prepare(a.images.resolve(), out, a.rare)
        sys.stdout.write(json.dumps(figures, ensure_ascii=False, indent=1) + "\n")
        with JourneyDisplay("TigerData on DDTI") as display:
            results = Journey(stages(out, a), out, watch=display.watch).run()
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{results['report'].get('verdict', '')}\nreport: {out / 'report.html'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
