"""The command `tigergen evaluate`: a run against its workspace, or any two image sets against each other."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tigerdata.console import JsonOption, WorkspaceOption, open_workspace, show
from tigerdata.progress import reporter


def evaluate(
    real: Annotated[
        Path | None, typer.Argument(help="Real images that the generator has not seen: a folder or a table of files.")
    ] = None,
    fake: Annotated[
        Path | None, typer.Argument(help="Generated images: a folder, an augmented folder or a table of files.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Augmented folder to measure against its own workspace, instead of REAL FAKE.")
    ] = None,
    extractor: Annotated[
        str, typer.Option(help="texture, judge, dual, or FILE.safetensors of a classifier.")
    ] = "texture",
    architecture: Annotated[
        str | None, typer.Option(help="torchvision name of the file's network; default: what the file says.")
    ] = None,
    train: Annotated[
        Path | None, typer.Option(help="Images the generator was trained on: adds the memorisation figures.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Draws of two halves of the real set.")] = 10,
    limit: Annotated[
        int, typer.Option(min=10, help="Images of a class that are looked at, of REAL and of FAKE.")
    ] = 1000,
    geometry: Annotated[bool, typer.Option("--geometry", help="The Geometry Score too; takes long.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every draw.")] = 0,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure generated images: each number with its N, its extractor and what other real images get in their place.

    REAL FAKE compares any two sets; --run measures an augmented folder of a workspace, with attribute agreement and
    condition adherence.

    Example: tigergen evaluate --run augmented -w study
    """
    from kb.errors import UsageError

    if (run is None) == (real is None or fake is None) or (run is not None and real is not None):
        raise UsageError("give two image sets, REAL and FAKE, or --run with an augmented folder.")
    if run is not None:
        from tigergen import workshop

        show(workshop.evaluate(open_workspace(workspace), run, progress=reporter()), as_json)
        return
    from tigergen.evaluation.real_fake import measure_folders

    found = measure_folders(
        str(real), str(fake), extractor, architecture, train, repeats, limit, geometry, seed,
        _judge_folder(workspace) if extractor in ("judge", "dual") else None, reporter(),
    )  # fmt: skip
    if as_json:
        show(found, as_json)
        return
    _show(found)


def _judge_folder(workspace: Path | None) -> Path:
    from tigergen import workshop

    return workshop.model_folder(open_workspace(workspace), workshop.JUDGE)


def _show(found: dict[str, Any]) -> None:
    """What was measured with, a table, and what was left out and why."""
    from tigerdata.tables import show_table
    from tigergen.evaluation.real_fake import COLUMNS, outlined

    sets = found["sets"]
    title = f"{sets['fake']['n']:,} generated against {sets['real']['n']:,} real images of {found['size']} px"
    show_table(title, outlined(found), COLUMNS)
    typer.echo(f"extractor: {found['extractor']}, weights {found['weights_sha256'][:16]}, {found['resize']}")
    typer.echo(
        f"floor: real against real at the same n, {found['repeats']} draws of two halves by {found['halves_by']}"
    )
    if found["classes_left_out"]:
        typer.echo(f"not in both sets, left out: {', '.join(found['classes_left_out'])}")
    for note in sorted({row["note"] for row in found["rows"] if row["note"]}):
        typer.echo(f"note: {note}")
    if "memorisation" in found:
        show({"memorisation": {**found["memorisation"], "flagged": len(found["memorisation"]["flagged"])}}, False)
    for name, why in found["left_out"].items():
        typer.echo(f"left out: {name}: {why}")
