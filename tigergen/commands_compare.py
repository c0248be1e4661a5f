"""The command `tigergen compare`: the paper's methods of augmentation side by side on one's own images."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tigerdata.console import JsonOption, WorkspaceOption, open_workspace, show

COLUMNS = ("method", "auroc", "interval", "accuracy", "sensitivity", "specificity", "brier", "minus", "p_holm")


def compare(
    target: Annotated[str, typer.Option(help="The rare class.")],
    out: Annotated[Path, typer.Option(help="Folder; the same command again continues.")] = Path("compare"),
    methods: Annotated[
        str,
        typer.Option(
            help="all, or some of none, basic, mixing, erasing, feature-space, pg-gan, dit, imagen, sd, sd-s, sd-c, "
            "tiger-n, tiger-f, real, with commas."
        ),
    ] = "all",
    ablations: Annotated[
        str,
        typer.Option(
            help="What is taken from Tiger-F: all, or some of weighting, fusion, fg, bg, sequential, literature."
        ),
    ] = "",
    reference: Annotated[str, typer.Option(help="Classes to tell it from, with commas; default: benign, or all.")] = "",
    multiclass: Annotated[bool, typer.Option("--multiclass", help="One classifier of all classes.")] = False,
    folds: Annotated[int, typer.Option(min=1, help="Folds by patient; 1: the workspace's own split.")] = 5,
    seeds: Annotated[int, typer.Option(min=1, help="Classifiers a method and fold.")] = 5,
    generator_seeds: Annotated[int, typer.Option(min=1, help="Generators a method and fold.")] = 2,
    steps: Annotated[int, typer.Option(min=2, help="Optimiser steps of every generator.")] = 4000,
    amount: Annotated[float, typer.Option(help="Generated images, times the real ones.")] = 1.0,
    amounts: Annotated[str, typer.Option(help="Amounts of the curve, with commas.")] = "0,0.5,1,2,4",
    curve: Annotated[str, typer.Option(help="Methods of the curve: all, none or names with commas.")] = "all",
    iterations: Annotated[int, typer.Option(min=2, help="Training steps of each classifier.")] = 400,
    architecture: Annotated[str, typer.Option(help="resnet18, resnet50 or small.")] = "resnet18",
    recipes: Annotated[int, typer.Option(min=1, help="Ways of training a method may choose from on validation.")] = 2,
    rare: Annotated[
        list[str] | None, typer.Option(help="class=number: keep so many training images, hold the others back.")
    ] = None,
    preset: Annotated[str, typer.Option(help="Preset of models and training.")] = "tiny",
    settings: Annotated[list[str] | None, typer.Option("--set", help="Change a setting: section.key=value.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every draw.")] = 0,
    cap: Annotated[float, typer.Option(help="Minutes that no generator should exceed; the page says which did.")] = 0.0,
    budget: Annotated[
        float | None, typer.Option(help="Minutes for everything in one process; what is made smaller is printed.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the stages with estimated times.")] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare ways to augment: twelve of the paper, the ceiling, ablations; tables, charts and report.html.

    Example: tigergen compare --target FTC --methods none,basic,tiger-f --folds 1 --seeds 1 --generator-seeds 1
    --steps 4 --amount 0.2 --curve none --iterations 4 --architecture small --recipes 1 --out compare -w study
    """
    from tigerdata.progress import reporter
    from tigergen.evaluation.compare.run import compare as run
    from tigergen.evaluation.compare.settings import Settings

    asked = Settings(
        target=target,
        methods=_names(methods),
        ablations=_names(ablations),
        reference=_names(reference),
        multiclass=multiclass,
        folds=folds,
        seeds=seeds,
        generator_seeds=generator_seeds,
        steps=steps,
        amount=amount,
        amounts=_numbers(amounts),
        curve=_names(curve),
        iterations=iterations,
        architecture=architecture,
        recipes=recipes,
        rare=_counts(rare or []),
        preset=preset,
        overrides=tuple(settings or ()),
        seed=seed,
        minutes=cap,
    )
    found = run(open_workspace(workspace), asked, out, budget, dry_run, reporter())
    if as_json:
        show(found, as_json)
    elif dry_run:
        _show_stages(found)
    else:
        _show_table(found)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _numbers(text: str) -> tuple[float, ...]:
    from kb.errors import UsageError

    try:
        return tuple(sorted({float(part) for part in _names(text)}))
    except ValueError:
        raise UsageError(f"--amounts '{text}' is no list of numbers; write it as 0,0.5,1,2,4.") from None


def _counts(texts: list[str]) -> dict[str, int]:
    from kb.errors import UsageError

    out = {}
    for text in texts:
        label, equals, number = text.partition("=")
        if not equals or not label or not number.isdigit():
            raise UsageError(f"--rare '{text}' is not of the form class=number, such as FTC=30.")
        out[label] = int(number)
    return out


def _show_stages(found: dict[str, Any]) -> None:
    from tigerdata.tables import show_table

    title = f"About {found['minutes']} minutes in one process ({found['rule']})"
    show_table(title, found["stages"], ("stage", "runs", "images", "each_s", "seconds"))
    for sentence in found["scaled"]:
        typer.echo(f"made smaller: {sentence}")


def _show_table(found: dict[str, Any]) -> None:
    from tigerdata.tables import show_table

    against = {d["method"]: d for name in ("differences", "ablations", "ceiling") for d in found[name]}
    rows = []
    for row in found["table"]:
        line = {"method": row["method"], "interval": "{:.3f} – {:.3f}".format(*row["auroc"]["ci"])}
        line |= {name: f"{row[name]['mean']:.3f}" for name in COLUMNS if name in row and name != "method"}
        if row["method"] in against:
            d = against[row["method"]]
            line |= {"minus": "{:+.3f}".format(-d["auroc"]["difference"]), "p_holm": f"{d['p_holm']:.3f}"}
        rows.append(line)
    show_table(f"{found['target']}: mean over folds and seeds; minus: AUROC beside Tiger-F's", rows, COLUMNS)
    for sentence in found["scaled"]:
        typer.echo(f"made smaller: {sentence}")
    typer.echo(found["verdict"]["text"])
    typer.echo(f"report: {found['report']}")
