"""The commands of `tigergen`. Thin: parse the arguments, call one library function, print the result.

Heavy libraries are imported inside the commands, so that `--help` answers at once.
"""

from pathlib import Path
from typing import Annotated

import typer

from tigerdata.console import APP, JsonOption, WorkspaceOption, open_workspace, show
from tigerdata.progress import reporter
from tigergen.commands_compare import compare
from tigergen.commands_draw import grid, sample
from tigergen.commands_evaluate import evaluate
from tigergen.commands_plan import plan
from tigergen.commands_study import study_app

gen_app = typer.Typer(
    help="Train the Tiger Model, generate images of the rare class, and prove what they are worth.", **APP
)
train_app = typer.Typer(help="Train a part: segmenter, judge, autoencoder, coarse stage, fine stage.", **APP)
gen_app.add_typer(train_app, name="train")
gen_app.add_typer(study_app, name="study")


@gen_app.command("presets")
def list_presets(
    name: Annotated[str | None, typer.Argument(help="Print this preset, or this TOML file, with every key.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the presets of model and training with what they need, or print one: every key, explained.

    Example: tigergen presets base256
    """
    from tigergen.training import presets

    if name is None:
        known = {one: presets.load(one) for one in presets.names()}
        listed = {one: {"description": p["description"], "needs": presets.needs(p)} for one, p in known.items()}
        show(listed if as_json else {one: f"{row['description']}; needs {row['needs']}" for one, row in listed.items()},
             as_json)  # fmt: skip
    elif as_json:
        show(presets.load(name), as_json)
    else:
        typer.echo(presets.text(name), nl=False)


PresetOption = Annotated[str, typer.Option(help="Name of a preset, or a TOML file.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Change one setting: section.key=value.")]
BaseOption = Annotated[Path | None, typer.Option(help="Stable Diffusion folder on disk to start from.")]
DryOption = Annotated[
    bool, typer.Option("--dry-run", help="Only say what it needs: settings, parameters, memory, time.")
]


def _train(
    stage: str, dry_run: bool, preset: str, settings: list[str] | None, workspace: Path | None, as_json: bool,
    **start: Path | None,
) -> None:  # fmt: skip
    """Train a stage of the model, or say what that needs; `start`: what else the stage starts from."""
    from tigergen import workshop
    from tigergen.training import estimate, presets

    ws = open_workspace(workspace)
    if not dry_run:
        trained = getattr(workshop, f"train_{stage}")(ws, preset, settings or (), **start, progress=reporter())
        show(trained, as_json)
        return
    found = workshop.dry_run(ws, stage, preset, settings or (), **start)
    if as_json:
        show(found, as_json)
        return
    typer.echo(presets.written(found["settings"]))
    show(estimate.in_words(found), as_json)


@train_app.command("segmenter")
def train_segmenter(
    kind: Annotated[str, typer.Option(help="What to outline: nodule or gland.")] = "nodule",
    model: Annotated[str, typer.Option(help="unet, or yolo (extra `yolo`).")] = "unet",
    imgsz: Annotated[
        int | None, typer.Option(min=32, help="Longer side of a frame in pixels; default: the model's recipe.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the annotated training images; default: the model's recipe.")
    ] = None,
    width: Annotated[float, typer.Option(min=0.1, max=4, help="Factor on the model's channels.")] = 1.0,
    threads: Annotated[int, typer.Option(min=1, help="Threads; another number gives other last digits.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of every draw.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of the segmenter; default: the workspace's own.")] = None,
    start: Annotated[
        Path | None, typer.Option(help="Folder of a U-Net to begin with; default: random weights.")
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a segmenter on the workspace's imported masks, from random weights or those of another U-Net (--start).

    Example: tigergen train segmenter --kind nodule --model unet --imgsz 64 --epochs 1 -w study
    """
    from tigerdata import regions

    result = regions.train_segmenter(
        open_workspace(workspace),
        out,
        kind=kind,
        model=model,
        imgsz=imgsz,
        epochs=epochs,
        width=width,
        threads=threads,
        seed=seed,
        progress=reporter(),
        start=start,
    )
    show(result, as_json)


@train_app.command("judge")
def train_judge(
    simulated: Annotated[int, typer.Option(min=0, help="Train on so many simulated frames; 0: on real images.")] = 0,
    epochs: Annotated[int, typer.Option(min=1, help="Passes of the judge over its training images.")] = 8,
    shipped: Annotated[
        bool, typer.Option("--shipped", help="Take the one for simulated frames that TigerData ships.")
    ] = False,
    held_out: Annotated[int, typer.Option(min=10, help="Frames to measure the shipped one on.")] = 1000,
    dual_only: Annotated[
        bool, typer.Option("--dual-only", help="Leave the judge as it is: train the dual encoder alone.")
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train what checks whether an image shows what its prompt says: judge of attributes, and dual encoder of both.

    The dual encoder always learns from the workspace's own training images; --shipped trains nothing.

    Example: tigergen train judge --simulated 64 --epochs 1 -w study
    """
    from kb.errors import UsageError
    from tigergen import workshop

    if dual_only and (shipped or simulated):
        raise UsageError("--dual-only leaves the judge as it is: give it without --shipped and --simulated.")
    if dual_only:
        show({"dual_encoder": workshop.train_dual_encoder(open_workspace(workspace), progress=reporter())}, as_json)
        return
    if shipped:
        show(workshop.take_shipped_judge(open_workspace(workspace), held_out), as_json)
        return
    show(workshop.train_judge(open_workspace(workspace), simulated, epochs, progress=reporter()), as_json)


@train_app.command("vae")
def train_vae(
    preset: PresetOption = "base256",
    settings: SetOption = None,
    dry_run: DryOption = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train the autoencoder of a preset that has its own (base256), before its coarse stage.

    Example: tigergen train vae --preset base256 --set model.image_size=64 --set "vae.channels=[8, 8, 8, 8]"
    --set vae.steps=2 --set training.batch=2 -w study
    """
    _train("vae", dry_run, preset, settings, workspace, as_json)


@train_app.command("coarse")
def train_coarse(
    preset: PresetOption = "tiny",
    settings: SetOption = None,
    base: BaseOption = None,
    dry_run: DryOption = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train the coarse stage: U-Net and text encoder on prompt-image pairs.

    Example: tigergen train coarse --preset tiny --set coarse.steps=4 --set training.grid_every=0 -w study
    """
    _train("coarse", dry_run, preset, settings, workspace, as_json, base=base)


@train_app.command("fine")
def train_fine(
    preset: PresetOption = "tiny",
    settings: SetOption = None,
    dry_run: DryOption = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train the fine stage: FG-Encoder, BG-Encoder and their fusion on the coarse model.

    Example: tigergen train fine --preset tiny --set fine.steps=4 --set training.grid_every=0 -w study
    """
    _train("fine", dry_run, preset, settings, workspace, as_json)


TargetOption = Annotated[str, typer.Option(help="The rare class.")]


gen_app.command("plan")(plan)


@gen_app.command("augment")
def augment(
    out: Annotated[Path, typer.Option(help="Augmented folder; the same command again continues it.")],
    target: Annotated[str | None, typer.Option(help="The rare class; with --n instead of --plan.")] = None,
    n: Annotated[int | None, typer.Option(min=1, help="Images a class.")] = None,
    plan: Annotated[Path | None, typer.Option(help="A plan written by `tigergen plan`.")] = None,
    shard: Annotated[
        str, typer.Option(help="Part i of N of the work, as i/N; default: whatever no other process has in hand.")
    ] = "0/1",
    batch: Annotated[int, typer.Option(min=1, help="Images at once.")] = 16,
    keep_all: Annotated[bool, typer.Option("--keep-all", help="Reject nothing, only record the scores.")] = False,
    without: Annotated[
        list[str] | None,
        typer.Option(help="A gate that only records its score: attributes, mask or realism. Repeatable."),
    ] = None,
    quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Keep rejected images in OUT-quarantine, a folder a reason.")
    ] = False,
    no_report: Annotated[
        bool, typer.Option("--no-report", help="Do not measure the run and write report.html.")
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Generate the images of a plan, check each, replace rejected ones; manifest, data card and report.html.

    Start it as often as you like on one folder, also from several machines: each process takes what is left.

    Example: tigergen augment --plan plan.json --out augmented --keep-all -w study
    """
    from tigergen import workshop
    from tigergen.augment.pipe import is_first

    ws = open_workspace(workspace)
    # Each process counts what all of them have made: one line, and one report, is enough.
    tell, write = reporter(quiet=not is_first()), is_first() and not no_report
    result = workshop.augment(
        ws, out, target, n, plan, shard, batch, keep_all, tell, report=write, keep_rejected=quarantine,
        without=without or (),
    )  # fmt: skip
    if is_first() or not result["complete"]:
        show(result, as_json)
    if result.get("interrupted"):
        raise KeyboardInterrupt


gen_app.command("sample")(sample)
gen_app.command("grid")(grid)


@gen_app.command("arms")
def arms(
    arm: Annotated[str, typer.Option(help="natural, classical, generated, target-only or real.")],
    target: TargetOption,
    run: Annotated[Path | None, typer.Option(help="Augmented folder, for arms with generated images.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many classifiers.")] = 4,
    iterations: Annotated[int, typer.Option(min=1, help="Training steps of each, the same for all arms.")] = 400,
    shard: Annotated[str, typer.Option(help="Part i of N of the seeds, as i/N.")] = "0/1",
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train classifiers of the rare class against benign and score them: one way of training an arm.

    Example: tigergen arms --arm natural --target FTC --seeds 2 --iterations 4 -w study
    """
    from tigergen.evaluation.arms import run_arm
    from tigergen.evaluation.report import arms_folder
    from tigergen.workshop import read_shard

    ws = open_workspace(workspace)
    folder, part = arms_folder(ws, target), read_shard(shard)
    show(run_arm(ws, arm, target, folder, seeds, iterations, run=run, shard=part, progress=reporter()), as_json)


gen_app.command("compare")(compare)
gen_app.command("evaluate")(evaluate)


@gen_app.command("report")
def report(
    run: Annotated[Path, typer.Option(help="Augmented folder.")],
    target: TargetOption,
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the report: one offline HTML file with balance, pictures, figures and a verdict.

    Example: tigergen report --run augmented --target FTC --out report.html -w study
    """
    from tigergen.evaluation.report import write_report

    show(write_report(open_workspace(workspace), out, run, target), as_json)


@gen_app.command("demo")
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the demo; the same command again continues.")] = Path("demo"),
    budget: Annotated[str, typer.Option(help="minute, demo (20 minutes) or hour.")] = "demo",
    as_json: JsonOption = False,
) -> None:
    """Walk the whole way on a simulated corpus and open an honest report.

    Example: tigergen demo --budget minute --out demo
    """
    from tigergen import demo as journey

    show(journey.demo(out, budget), as_json)
