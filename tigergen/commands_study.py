"""The commands `tigergen study new|serve|score`: people judge real and generated images, blinded."""

from collections.abc import Container
from pathlib import Path
from typing import Annotated, Any

import typer

from tigerdata.console import APP, JsonOption, WorkspaceOption, open_workspace, show

study_app = typer.Typer(help="Reader studies: people judge real and generated images in a page of this machine.", **APP)
StudyArgument = Annotated[Path, typer.Argument(help="Folder of the study.")]


@study_app.command("new")
def new(
    study: StudyArgument,
    run: Annotated[list[Path], typer.Option(help="Augmented folder; repeat it to compare several generators.")],
    source: Annotated[int, typer.Option(min=0, help="Pictures to call real or generated; 0: leave the task out.")] = 40,
    match: Annotated[int, typer.Option(min=0, help="Texts to find among four pictures; 0: leave the task out.")] = 20,
    mark: Annotated[int, typer.Option(min=0, help="Pictures to mark the features of; 0: leave the task out.")] = 30,
    junior: Annotated[int, typer.Option(min=0, help="How many junior readers.")] = 1,
    senior: Annotated[int, typer.Option(min=0, help="How many senior readers.")] = 1,
    feature: Annotated[
        list[str] | None, typer.Option(help="attribute=value to mark, in place of the ten that are chosen; repeat it.")
    ] = None,
    classes: Annotated[list[str] | None, typer.Option("--class", help="Only these classes; repeat it.")] = None,
    split: Annotated[str, typer.Option(help="The part that real images come from.")] = "test",
    repeats: Annotated[float, typer.Option(help="Share of each task that is asked twice, for self-agreement.")] = 0.1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every draw and order.")] = 0,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a study: equal numbers of real test images and generated ones by class, questions, one link a reader.

    Example: tigergen study new reading --run augmented --source 8 --match 0 --mark 8 -w study
    """
    from tigergen.study.new import new as make

    counts = {"source": source, "match": match, "mark": mark}
    levels = {"junior": junior, "senior": senior}
    made = make(
        open_workspace(workspace),
        study,
        run,
        counts=counts,
        readers=levels,
        split=split,
        classes=classes,
        features=feature or (),
        repeats=repeats,
        seed=seed,
    )
    show(made, as_json)


@study_app.command("serve")
def serve(
    study: StudyArgument,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of 127.0.0.1; 0: a free one.")] = 8765,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Name by which a tunnel or reverse proxy calls this server; repeat it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print a link for each reader and serve their page on this machine until Ctrl-C; start it again to continue.

    Example: tigergen study serve reading
    """
    from tigergen.study.serve import serve as run

    def ready(links: dict[str, str]) -> None:
        for reader, link in links.items():
            typer.echo(f"{reader}: {link}", err=True)
        typer.echo("Press Ctrl-C to stop; answers are stored as they come.", err=True)

    show(run(study, port, allow_host or (), ready), as_json)


@study_app.command("score")
def score(
    study: StudyArgument,
    out: Annotated[Path | None, typer.Option(help="Folder of the tables; default: results in the study.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap intervals.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Score the answers so far: exact intervals, chance, agreement, junior and senior readers; CSV, Parquet and JSON.

    Example: tigergen study score reading
    """
    from tigergen.study.score import score as run

    scores = run(study, out, seed)
    if as_json:
        show(scores, as_json)
        return
    from tigerdata.tables import show_table

    scores["shares"] = [row for row in scores["shares"] if _in_short(row, scores["progress"])]
    scores["features"] = [row for row in scores["features"] if row["n"]]
    for name, title, columns in TABLES:
        if scores[name]:
            show_table(title, [_rounded(row) for row in scores[name]], columns)
    waiting = {who: row for who, row in scores["progress"].items() if row["answered"] < row["of"]}
    for who, row in waiting.items():
        typer.echo(f"{who}: {row['answered']} of {row['of']} answered; figures are preliminary.")
    typer.echo(f"tables: {scores['results']}")


TABLES = (
    ("shares", "Right answers; and who said real of what", ("task", "measure", "who", "what", "n", "share", "low",
     "high", "low_crossed", "high_crossed", "p")),
    ("features", "Features against the text", ("feature", "what", "n", "share", "low", "high", "sensitivity",
     "specificity", "cohen_kappa", "fleiss_kappa")),
    ("readers_agree", "Agreement between readers", ("task", "who", "readers", "cases", "agreeing_pairs",
     "fleiss_kappa")),
    ("self_agreement", "Agreement of readers with themselves", ("task", "who", "n", "same", "share", "low", "high",
     "cohen_kappa")),
    ("levels", "Senior less junior readers", ("task", "readers_junior", "readers_senior", "junior", "senior",
     "difference", "low", "high", "p", "p_least")),
    ("seconds", "Seconds to an answer", ("task", "who", "n", "median_s")),
)  # fmt: skip


def _in_short(row: dict[str, Any], readers: Container[str]) -> bool:
    """Whether a row of shares is for the screen: single readers in total only, and a source by who said real of it."""
    if row["who"] in readers:
        return row["what"] == "all"
    one_source = row["what"] != "all" and not row["what"].startswith("class ")
    return row["measure"] == "said real" or row["task"] != "source" or not one_source


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()}
