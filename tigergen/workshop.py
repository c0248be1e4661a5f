"""Train the parts of the Tiger Model inside a workspace: load its cases, train, and enter the model in the database."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kb.errors import UserError
from tigerdata.progress import Progress

if TYPE_CHECKING:
    from tigerdata.workspace import Workspace
    from tigergen.data import Cases

VAE, COARSE, FINE, JUDGE = "vae", "coarse", "fine", "judge"
JUDGE_SIZE = 64
# Far from the seeds of corpora, so that the judge never trains on a frame that it will judge against.
JUDGE_SEED = 900_000
UNSEEN_SEED = 800_000
UNSEEN_FRAMES = 1000
SHIPPED_JUDGE = Path(__file__).parent / "evaluation" / "phantom_judge"


def model_folder(ws: "Workspace", kind: str) -> Path:
    """Where a workspace keeps its model of a kind: vae, coarse, fine or judge."""
    return ws.path / "models" / kind


def _cases(ws: "Workspace", settings: Mapping[str, Any]) -> "tuple[Cases, Cases]":
    """Training and held-out cases at the size of a preset."""
    from tigergen.data import load_cases

    train, val = (load_cases(ws, part, settings["model"]["image_size"]) for part in ("train", "val"))
    return train, val


def train_vae(
    ws: "Workspace",
    preset: str | os.PathLike[str] = "base256",
    overrides: Iterable[str] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train the autoencoder of a preset that has its own, on the training split. Returns its record."""
    from tigergen.training import presets, stages

    settings = presets.load(str(preset), overrides)
    cases, held_out = _cases(ws, settings)
    out = model_folder(ws, VAE)
    record = stages.autoencoder(cases, settings, out, progress=progress, held_out=held_out)
    _enter(ws, VAE, out, settings)
    return record


def train_coarse(
    ws: "Workspace",
    preset: str | os.PathLike[str] = "tiny",
    overrides: Iterable[str] = (),
    base: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train the coarse stage on the training split; `base` is a Stable Diffusion folder on disk. Returns its record.

    A preset with an autoencoder of its own takes the one that :func:`train_vae` trained. Raises UserError when what the
    preset starts from is missing or of another kind.
    """
    from tigergen.evaluation.adherence import watcher
    from tigergen.training import presets, stages

    settings = presets.load(str(preset), overrides)
    vae = model_folder(ws, VAE) if settings["model"]["autoencoder"] == "kl" and base is None else None
    # First, because reading the images of a big corpus takes minutes.
    stages.check_start(settings, base, vae)
    cases, held_out = _cases(ws, settings)
    out = model_folder(ws, COARSE)
    record = stages.coarse(
        cases, settings, out, base=base, progress=progress, held_out=held_out, knowledge=ws.kb, vae=vae,
        measure=watcher(judge=own_judge(ws)),
    )  # fmt: skip
    _enter(ws, COARSE, out, settings)
    return record


def train_fine(
    ws: "Workspace",
    preset: str | os.PathLike[str] = "tiny",
    overrides: Iterable[str] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train FG-Encoder, BG-Encoder and fusion on the workspace's coarse model. Returns the record of the run.

    Raises UserError when there is no coarse model yet.
    """
    from tigergen.evaluation.adherence import watcher
    from tigergen.training import presets, stages

    coarse = model_folder(ws, COARSE)
    if not (coarse / "model_index.json").is_file():
        raise UserError(f"{ws.path} has no finished coarse model; run `tigergen train coarse` first.")
    settings = presets.load(str(preset), overrides)
    cases, held_out = _cases(ws, settings)
    out = model_folder(ws, FINE)
    record = stages.fine(
        coarse, cases, settings, out, progress=progress, held_out=held_out, knowledge=ws.kb,
        measure=watcher(own_segmenter(ws), own_judge(ws)),
    )  # fmt: skip
    _enter(ws, FINE, out, settings)
    return record


def dry_run(
    ws: "Workspace",
    stage: str,
    preset: str | os.PathLike[str],
    overrides: Iterable[str] = (),
    base: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """What `train_vae`, `train_coarse` or `train_fine` would need: `settings`, resolved, and an estimate; see there.

    Trains nothing and writes nothing. A fine stage that has no coarse model yet is estimated from its preset.
    """
    from tigergen.training import presets
    from tigergen.training.estimate import estimate
    from tigergen.training.stages import check_start, vocabulary_of

    settings = presets.load(str(preset), overrides)
    coarse = model_folder(ws, COARSE)
    folder = base
    if stage == VAE and "vae" not in settings:
        raise UserError(f"Preset {preset} trains no autoencoder: it has no section [vae]; take base256.")
    if stage == FINE and (coarse / "model_index.json").is_file():
        folder = coarse
    elif stage == FINE and settings["base"]:
        raise UserError(f"{ws.path} has no finished coarse model; run `tigergen train coarse` first.")
    elif base is not None or (stage == COARSE and settings["base"]):
        check_start(settings, base, None)
    rows = ws.cases()
    seen = rows[rows["split"].isin(["train", "val"])]
    found = estimate(stage, settings, vocabulary_of([seen], ws.kb), int((seen["split"] == "train").sum()), folder)
    return {"settings": settings, **found}


def _enter(ws: "Workspace", kind: str, folder: Path, settings: dict[str, Any]) -> None:
    """Write the model into the table `models`: what it is, where it lies and which images are behind it.

    The images and not the name of a split: a split can be drawn again, what a model has seen cannot.
    """
    import pandas as pd

    from kb import store
    from tigergen.model.folder import model_id, trained_on

    identity, seen = model_id(folder), trained_on(folder)
    row = {
        "model_id": identity,
        "kind": kind,
        "path": os.path.relpath(folder, ws.path),
        "sha256": identity,
        "trained_on": None if seen is None else json.dumps(seen),
        "settings": json.dumps(settings, sort_keys=True),
    }
    with ws.connect() as con, store.transaction(con):
        con.execute("DELETE FROM models WHERE kind = ?", [kind])
        store.insert(con, "models", pd.DataFrame([row]))


def unseen_frames(n: int) -> tuple[Any, list[dict[str, list[str]]]]:
    """Simulated frames uint8 [n, s, s] with their attributes, on which no judge and no generator has trained."""
    from tigerdata.phantom.corpus import uniform_frames

    images, _, attributes = uniform_frames(n, JUDGE_SIZE, UNSEEN_SEED)
    return images, attributes


def take_shipped_judge(ws: "Workspace", frames: int = UNSEEN_FRAMES) -> dict[str, Any]:
    """Give the workspace the judge that comes with the package and measure it again, on frames it has not seen.

    It was trained on 42,000 simulated frames (`benchmarks/make_phantom_judge.py`), so it judges simulated frames only.
    """
    from tigergen.evaluation import judge

    shipped = judge.Judge.load(SHIPPED_JUDGE)
    shipped.figures |= judge.measure(shipped, *unseen_frames(frames))
    shipped.save(model_folder(ws, JUDGE))
    return shipped.figures


def train_judge(
    ws: "Workspace", simulated: int = 0, epochs: int = 8, seed: int = 0, progress: Progress | None = None
) -> dict[str, Any]:
    """Train the workspace's judge on `simulated` uniform phantom frames, or, with 0, on its own real training images.

    Its figures come from images that it has not seen: other simulated frames, or the validation split. The dual encoder
    is trained after it, always on the workspace's own images. Returns the judge's figures and, as `dual_encoder`, those
    of the encoder or the sentence why there is none.
    """
    from tigergen.evaluation import judge

    out = model_folder(ws, JUDGE)
    if simulated:
        from tigerdata.phantom.corpus import uniform_frames

        images, _, attributes = uniform_frames(simulated, JUDGE_SIZE, seed + JUDGE_SEED)
        known, held_out = (images, attributes), unseen_frames(max(simulated // 8, 16))
        view = "phantom"
    else:
        from tigergen.data import load_cases

        train, val = (load_cases(ws, part, JUDGE_SIZE) for part in ("train", "val"))
        known, held_out, view = (train.images, train.attributes), (val.images, val.attributes), "values"
    made = judge.train_judge(*known, ws.kb, out, view, held_out, epochs, seed, JUDGE_SIZE, progress=progress)
    return {**made.figures, "dual_encoder": train_dual_encoder(ws, seed, progress)}


def train_dual_encoder(ws: "Workspace", seed: int = 0, progress: Progress | None = None) -> dict[str, Any] | str:
    """Train the workspace's dual encoder on its training pairs of image and FG prompt; measure it on validation.

    It lies in the judge's folder. Returns its figures, or, where there are too few pairs, the sentence that says so;
    an encoder that is there already then stays as it is.
    """
    from tigergen.data import load_cases
    from tigergen.evaluation import dual_encoder

    rows = ws.cases()
    reason = dual_encoder.too_few([str(fg) for fg in rows[rows["split"] == "train"]["fg"]])
    if reason is not None:
        return reason
    train = load_cases(ws, "train", JUDGE_SIZE)
    val = load_cases(ws, "val", JUDGE_SIZE) if "val" in set(rows["split"]) else None
    made = dual_encoder.train_dual_encoder(
        train.images, train.fg, ws.kb, model_folder(ws, JUDGE), None if val is None else (val.images, val.fg),
        seed=seed, size=JUDGE_SIZE, image_ids=train.image_ids, progress=progress,
    )  # fmt: skip
    return made.figures


def own_judge(ws: "Workspace") -> Any:
    """The workspace's judge, or None when it has trained none."""
    from tigergen.evaluation.judge import Judge

    folder = model_folder(ws, JUDGE)
    return Judge.load(folder) if (folder / "judge.json").is_file() else None


def own_dual_encoder(ws: "Workspace") -> Any:
    """The workspace's dual encoder of images and prompts, or None when it has trained none."""
    from tigergen.evaluation.dual_encoder import RECORD, DualEncoder

    folder = model_folder(ws, JUDGE)
    return DualEncoder.load(folder) if (folder / RECORD).is_file() else None


def own_segmenter(ws: "Workspace") -> Any:
    """The workspace's segmenter of nodules, or None when it has trained none."""
    from tigerdata.regions.segment import SETTINGS, default_folder, open_segmenter

    folder = default_folder(ws)
    return open_segmenter(folder) if (folder / SETTINGS).is_file() else None


def read_shard(text: str) -> tuple[int, int]:
    """Part i of N of some work, written i/N. Raises UserError unless 0 <= i < N."""
    try:
        part, parts = (int(number) for number in text.split("/"))
    except ValueError:
        part, parts = 0, 0
    if not 0 <= part < parts:
        raise UserError(f"--shard '{text}' is not of the form i/N with i from 0 to N - 1, such as 0/2.")
    return part, parts


def plan(
    ws: "Workspace",
    target: str,
    n: int | None = None,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    *,
    out: str | os.PathLike[str] | None = None,
    estimate: bool = True,
    **settings: Any,
) -> dict[str, Any]:
    """Plan generated images (`augment.plan.make_plan`, whose settings these are) and measure what they will cost.

    `estimate`: make a few images with the workspace's fine model for time and disk. With `out` the plan is written.
    """
    from tigergen.augment import plan as plans
    from tigergen.augment.estimate import estimate as measure

    made = plans.make_plan(ws, target, n, classes, seed, **settings)
    if estimate:
        made["estimate"] = measure(ws, made, model_folder(ws, FINE))
    if out is not None:
        plans.write_plan(out, made)
    return made


def augment(
    ws: "Workspace",
    out: str | os.PathLike[str],
    target: str | None = None,
    n: int | None = None,
    plan: str | os.PathLike[str] | None = None,
    shard: str = "0/1",
    batch: int = 16,
    keep_all: bool = False,
    progress: Progress | None = None,
    report: bool = True,
    keep_rejected: bool = False,
    without: Sequence[str] = (),
) -> dict[str, Any]:
    """Run a plan, or the plan for `n` images of `target` and every other class, with the workspace's fine model.

    Judge and segmenter, where the workspace has them, gate every image (`augment.gates`). `keep_all` rejects nothing
    and records the scores; `keep_rejected` keeps rejected images in a folder beside `out`; `without` names gates that
    record their score and reject nothing (`augment.gates.OPTIONAL`).
    `report`: measure the finished run and write `report.html` into its folder, unless it is there.
    Raises UserError unless either a plan or both target and n are given.
    """
    from tigergen.augment import plan as plans
    from tigergen.augment import run
    from tigergen.augment.gates import GateSettings

    if (plan is None) == (target is None or n is None):
        raise UserError("give either --plan, or --target together with --n.")
    todo = plan if plan is not None else plans.make_plan(ws, str(target), int(n or 0))
    gates = GateSettings.without(without, keep_all)
    result = run.augment(
        ws, todo, model_folder(ws, FINE), out, read_shard(shard), batch, progress, gates=gates,
        judge=own_judge(ws), segmenter=own_segmenter(ws), keep_rejected=keep_rejected,
    )  # fmt: skip
    page = Path(out) / "report.html"
    if report and result["complete"] and result["accepted"] and not page.exists():
        from tigergen.evaluation.report import write_report

        # Classifiers that the workspace has trained before were of another run: no folder of arms.
        write_report(ws, page, out, arms=Path(out) / "arms")
    return result


def evaluate(ws: "Workspace", run: str | os.PathLike[str], progress: Progress | None = None) -> dict[str, Any]:
    """Measure an augmented folder with what the workspace has of judge, dual encoder and segmenter."""
    from tigergen.evaluation.evaluate import evaluate as measure

    return measure(ws, run, own_judge(ws), own_segmenter(ws), progress=progress, dual=own_dual_encoder(ws))
