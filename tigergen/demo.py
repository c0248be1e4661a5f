"""The whole journey on a simulated corpus: reports and images in, a trained model, an augmented data set, a report.

Every stage is a command that a user could type; `Journey` runs them two at a time and continues after a kill.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kb.errors import UserError
from tigergen.stages import Stage

TARGET = "FTC"
CONTROL_ARMS = ("natural", "classical", "real")
# What the data card asks its owner: true of this corpus.
STATEMENTS = ("--licence", "Apache-2.0", "--consent", "none needed: the patients are simulated")


@dataclass(frozen=True)
class Budget:
    """How much of everything; steps and counts instead of minutes, so that a continued run ends the same."""

    train: str
    val: str
    test: str
    pool: str
    coarse_steps: int
    fine_steps: int
    segmenter_epochs: int
    judged: int
    generated: int
    seeds: int
    iterations: int
    ema: float = 0.99
    keep_all: bool = False
    without: tuple[str, ...] = ()


FULL: dict[str, Any] = {
    "train": "benign=1000,PTC=1000,FTC=30",
    "val": "benign=300,FTC=100",
    "test": "benign=600,FTC=600",
    "pool": "FTC=970",
    "judged": 1000,
}
BUDGETS = {
    # A minute of work: every stage, nothing learned. For tests and for a first look at the commands.
    "minute": Budget(
        train="benign=24,PTC=16,FTC=6",
        val="benign=8,FTC=4",
        test="benign=12,FTC=8",
        pool="FTC=8",
        coarse_steps=6,
        fine_steps=6,
        segmenter_epochs=1,
        judged=40,
        generated=6,
        seeds=2,
        iterations=6,
        ema=0.5,
        keep_all=True,
    ),
    # Less than twenty minutes on two cores that have nothing better than AVX2.
    "demo": Budget(
        **FULL,
        coarse_steps=400,
        fine_steps=700,
        segmenter_epochs=4,
        generated=200,
        seeds=3,
        iterations=200,
        # After minutes a model draws few of the words; that gate would reject three of four images.
        without=("attributes",),
    ),
    # An hour on two cores.
    "hour": Budget(
        **FULL, coarse_steps=1000, fine_steps=5000, segmenter_epochs=9, generated=500, seeds=4, iterations=800
    ),
}


def stages(out: Path, budget: Budget) -> list[Stage]:
    """The journey's stages for a folder; paths are inside `out`."""
    corpus, ws, run = out / "corpus", out / "workspace", out / "augmented"
    here = ("-w", str(ws))
    counts = asdict(budget)

    def data(*words: Any) -> tuple[str, ...]:
        return ("tigerdata", *(str(word) for word in words))

    def gen(*words: Any) -> tuple[str, ...]:
        return ("tigergen", *(str(word) for word in words))

    cohorts = [word for name in ("train", "val", "test", "pool") for word in (f"--{name}", counts[name])]
    ema = ("--set", f"training.ema={budget.ema}")
    gates = ("--keep-all",) if budget.keep_all else tuple(w for g in budget.without for w in ("--without", g))
    augment = gen("augment", "--plan", ws / "plan.json", "--out", run, *gates, "--no-report", *here)
    # A rate that falls helps a short fine stage; a rate of 2e-3 diverged after 720 steps (docs/paper.md).
    falling = ("--set", "training.decay=0.4")
    arms = ("--target", TARGET, "--seeds", budget.seeds, "--iterations", budget.iterations, *here)
    plan = [
        Stage(
            "corpus",
            "Simulate patients: frames, reports, pathology",
            data("simulate", corpus, *cohorts, "--workers", 2),
        ),
        Stage(
            "workspace",
            "Make a workspace with the thyroid knowledge base",
            data("init", ws, "--ids", "kept"),
            ("corpus",),
        ),
        Stage(
            "reports",
            "Read Chinese and English reports into facts",
            data("ingest", "reports", corpus / "reports.csv", *here),
            ("workspace",),
        ),
        Stage(
            "pathology",
            "Read the pathology: which subtype was it",
            data("ingest", "pathology", corpus / "pathology.csv", *here),
            ("reports",),
        ),
        Stage(
            "images", "Read frames and the masks that exist", data("ingest", "images", corpus, *here), ("pathology",)
        ),
        Stage("prompts", "Write nodule and background prompts", data("prompts", *here), ("images",)),
        Stage("split", "Split by patient", data("split", "--from-cohort", *here), ("prompts",)),
        Stage(
            "judge",
            "Measure the shipped judge of attributes on frames that nobody has seen",
            gen("train", "judge", "--shipped", "--held-out", budget.judged, *here),
            ("workspace",),
        ),
        Stage(
            "segmenter",
            "Train a U-Net to find nodules",
            gen("train", "segmenter", "--imgsz", 64, "--epochs", budget.segmenter_epochs, *here),
            ("split",),
        ),
        Stage("segment", "Find the nodule where no mask came along", data("segment", *here), ("segmenter",)),
        Stage(
            "coarse",
            "Tiger, coarse stage: what ultrasound looks like",
            gen("train", "coarse", "--set", f"coarse.steps={budget.coarse_steps}", *ema, *here),
            ("segment",),
        ),
        Stage(
            "fine",
            "Tiger, fine stage: FG- and BG-Encoder learn mask and edges",
            gen("train", "fine", "--set", f"fine.steps={budget.fine_steps}", *falling, *ema, *here),
            ("coarse",),
        ),
        Stage(
            "plan",
            f"Plan the images of {TARGET} and of the other classes",
            gen("plan", "--target", TARGET, "--n", budget.generated, "--out", ws / "plan.json", *here),
            ("segment",),
        ),
        *(
            Stage(
                f"arm-{arm}",
                f"Classifiers to compare with: {arm}",
                gen("arms", "--arm", arm, *arms),
                ("segment",),
            )
            for arm in CONTROL_ARMS
        ),
        Stage(
            "augment-0",
            "Generate, check, keep or replace (one half)",
            (*augment, "--shard", "0/2"),
            ("fine", "plan", "judge"),
        ),
        Stage(
            "augment-1",
            "Generate, check, keep or replace (other half)",
            (*augment, "--shard", "1/2"),
            ("fine", "plan", "judge"),
        ),
        Stage("augment", "Close the augmented folder: manifest and card", augment, ("augment-0", "augment-1")),
        *(
            Stage(
                f"arm-generated-{part}",
                f"Classifiers with generated images in every class ({half} half)",
                gen("arms", "--arm", "generated", "--run", run, "--shard", f"{part}/2", *arms),
                ("augment",),
            )
            for part, half in enumerate(("one", "other"))
        ),
        Stage(
            "export",
            "Export an image folder, after the leak check",
            data("export", "--run", run, "--out", out / "dataset", *STATEMENTS, *here),
            ("augment",),
        ),
        Stage("evaluate", "Measure the generated images", gen("evaluate", "--run", run, *here), ("augment", "judge")),
        Stage(
            "report",
            "Write the report",
            gen("report", "--run", run, "--target", TARGET, "--out", out / "report.html", *here),
            ("evaluate", "export", "arm-generated-0", "arm-generated-1", *(f"arm-{arm}" for arm in CONTROL_ARMS)),
        ),
    ]
    return plan


def demo(out: Path, budget: str = "demo") -> dict[str, Any]:
    """Run or continue the journey in `out`; returns the paths of data set and report, and the figures.

    Raises UserError for an unknown budget or when a stage fails.
    """
    from tigergen.display import JourneyDisplay
    from tigergen.stages import Journey

    if budget not in BUDGETS:
        raise UserError(f"there is no budget '{budget}'; choose one of {', '.join(BUDGETS)}.")
    folder = out.resolve()
    with JourneyDisplay(f"TigerData: the whole journey ({budget})") as display:
        results = Journey(stages(folder, BUDGETS[budget]), folder, watch=display.watch).run()
    report = results["report"]
    return {
        "report": str(folder / "report.html"),
        "dataset": str(folder / "dataset"),
        "augmented": str(folder / "augmented"),
        "verdict": report["verdict"],
    }
