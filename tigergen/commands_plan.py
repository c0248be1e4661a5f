"""The command `tigergen plan`: what will be generated, written down and shown before anything is sampled."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tigerdata.console import JsonOption, WorkspaceOption, open_workspace, show


def plan(
    target: Annotated[str, typer.Option(help="The rare class.")],
    n: Annotated[
        int | None, typer.Option(min=1, help="Images a class; default: what the rare class lacks to the largest one.")
    ] = None,
    balance: Annotated[bool, typer.Option("--balance", help="Every class up to the largest one.")] = False,
    strategy: Annotated[
        str | None,
        typer.Option(help='JSON: class to a number, "match:CLASS" (as many images as that class has) or "balance".'),
    ] = None,
    out: Annotated[Path, typer.Option(help="The plan file to write.")] = Path("plan.json"),
    classes: Annotated[
        list[str] | None, typer.Option("--class", help="Only the rare class and these; repeat it.")
    ] = None,
    target_only: Annotated[
        bool, typer.Option("--target-only", help="Only the rare class; warns, because that teaches real-or-generated.")
    ] = False,
    variant: Annotated[
        str, typer.Option(help="F: prompts say class and features (Tiger-F); N: the name of the class alone (Tiger-N).")
    ] = "F",
    draw: Annotated[
        str, typer.Option(help="Rare classes: coverage (pairs that real images lack come first) or profile.")
    ] = "coverage",
    values: Annotated[
        str, typer.Option(help="Rare classes: own (values their sources know) or seen (those of other classes too).")
    ] = "own",
    rare_below: Annotated[
        int, typer.Option(min=0, help="Classes with fewer real images are rare; 0: real prompts in every class.")
    ] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every draw.")] = 0,
    no_estimate: Annotated[
        bool, typer.Option("--no-estimate", help="Do not measure time and disk on a few images.")
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write which images will be generated, from which prompts and donors; read it, edit it, then augment.

    Example: tigergen plan --target FTC --n 4 --out plan.json -w study
    """
    from kb.errors import UsageError
    from tigergen import workshop
    from tigergen.augment.strategy import read_strategy

    if target_only and classes:
        raise UsageError("give either --target-only or --class.")
    made = workshop.plan(
        open_workspace(workspace),
        target,
        n,
        [] if target_only else classes,
        seed,
        out=out,
        estimate=not no_estimate,
        balance=balance,
        strategy=read_strategy(strategy) if strategy is not None else None,
        variant=variant,
        draw=draw,
        values=values,
        rare_below=rare_below,
    )
    _show(made, out, as_json)


def _show(made: Mapping[str, Any], out: Path, as_json: bool) -> None:
    """The plan in short: JSON for a machine; a table and a few lines for a person."""
    from tigergen.augment import outline

    if as_json:
        show({"plan": str(out), **outline.outline(made)}, as_json)
        return
    from tigerdata.tables import show_table

    short = outline.outline(made)
    title = f"{short['images']:,} images in {short['combinations']:,} combinations: {out}"
    show_table(title, outline.table(made), outline.COLUMNS)
    for name, text in outline.lines(made):
        typer.echo(f"{name}: {text}")
