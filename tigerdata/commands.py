"""The commands of `tigerdata`. Thin: parse the arguments, call one library function, print the result.

Heavy libraries are imported inside the commands, so that `--help` answers at once.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from kb.errors import UsageError
from tigerdata.commands_kb import TOP_LEVEL, kb_app
from tigerdata.console import APP, JsonOption, WorkspaceOption, open_workspace, show
from tigerdata.export.formats import FORMATS
from tigerdata.progress import reporter
from tigerdata.sources import SOURCES

MapOption = Annotated[
    list[str] | None, typer.Option("--map", help="name=column, where a column's name is not known; may be repeated.")
]
EncodingOption = Annotated[
    str | None, typer.Option(help="Encoding of text files; default: found by their bytes (UTF-8, UTF-16, GB18030).")
]

EXIT_GATE = 3  # contract 8 of the design: a quality gate failed

data_app = typer.Typer(help="Reports and images in, balanced and documented data sets out.", **APP)
ingest_app = typer.Typer(help="Read reports, pathology or images into the workspace.", **APP)
data_app.add_typer(ingest_app, name="ingest")
data_app.add_typer(kb_app, name="kb")
for _name, _command in TOP_LEVEL.items():
    data_app.command(_name)(_command)


@data_app.command("init")
def init(
    folder: Annotated[Path, typer.Argument(help="Folder of the new workspace.")] = Path("."),
    domain: Annotated[str, typer.Option(help="Organ whose vocabulary is used.")] = "thyroid",
    ids: Annotated[
        str, typer.Option(help="keyed: ids become keyed pseudonyms; kept: they are pseudonyms already.")
    ] = "keyed",
    as_json: JsonOption = False,
) -> None:
    """Make a workspace: settings, an empty knowledge base, room for models and data sets.

    Example: tigerdata init study --domain thyroid
    """
    from tigerdata.identity import KEPT, KEYED
    from tigerdata.workspace import Workspace

    if ids not in (KEYED, KEPT):
        raise UsageError(f"there is no --ids {ids}; write {KEYED} or {KEPT}.")
    workspace = Workspace.create(folder, domain, settings={"privacy": {"ids": ids}})
    show({"workspace": str(workspace.path), "domain": domain, "next": "tigerdata ingest reports FILES…"}, as_json)


@data_app.command("simulate")
def simulate(
    out: Annotated[Path, typer.Argument(help="Folder of the simulated corpus.")],
    train: Annotated[str, typer.Option(help="Images a class in the training cohort.")] = "benign=60,PTC=60,FTC=12",
    val: Annotated[str, typer.Option(help="The same for the validation cohort.")] = "benign=20,FTC=10",
    test: Annotated[str, typer.Option(help="The same for the test cohort.")] = "benign=20,FTC=20",
    pool: Annotated[str, typer.Option(help="Further real images, kept as the ceiling of a comparison.")] = "FTC=12",
    annotated: Annotated[float, typer.Option(min=0, max=1, help="Share of images that come with a nodule mask.")] = 0.7,
    size: Annotated[int, typer.Option(min=64, help="Side of a frame in pixels.")] = 256,
    seed: Annotated[int, typer.Option(help="Seed of every draw.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes; the result does not depend on it.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Simulate patients with ultrasound frames, masks, Chinese and English reports and pathology, truth included.

    Example: tigerdata simulate corpus --train benign=24,PTC=24,FTC=6 --val benign=8,FTC=4 --test benign=8,FTC=8
    --pool FTC=4
    """
    from tigerdata.phantom.corpus import write_corpus

    counts = {"train": train, "val": val, "test": test, "pool": pool}
    settings = {
        "counts": {cohort: _counts(text, f"--{cohort}") for cohort, text in counts.items()},
        "annotated_fraction": annotated,
        "size": size,
        "seed": seed,
    }
    show(write_corpus(out, settings, workers=workers, progress=reporter()), as_json)


def _counts(text: str, option: str) -> dict[str, int]:
    """Read `benign=60,FTC=12`."""
    try:
        return {name: int(number) for name, number in (part.split("=") for part in text.split(",") if part)}
    except ValueError:
        raise UsageError(f"{option} '{text}' is not of the form class=number,class=number; write it so.") from None


@ingest_app.command("reports")
def ingest_reports(
    files: Annotated[list[Path], typer.Argument(help="CSV, TSV, XLSX, JSONL, Parquet, or folders of .txt.")],
    column: MapOption = None,
    encoding: EncodingOption = None,
    phi: Annotated[
        str, typer.Option(help="standard, or strict: also every long number, any word after a name's label, all dates.")
    ] = "standard",
    workers: Annotated[int, typer.Option(min=0, help="Processes that parse; 0: one a core. Changes no result.")] = 0,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read reports: personal data is removed, the text is parsed, every finding keeps its characters.

    Example: tigerdata ingest reports corpus/reports.csv -w study
    """
    from tigerdata.processes import cores
    from tigerdata.reports import ingest

    result = ingest.ingest_reports(
        open_workspace(workspace),
        files,
        reporter(),
        mapping=_columns(column),
        encoding=encoding,
        phi=phi,
        workers=workers or cores(),
    )
    show(result, as_json)


def _columns(given: list[str] | None) -> dict[str, str]:
    """Read `--map findings=所见 --map patient_id=号码`."""
    mapping = {}
    for text in given or []:
        name, sign, column = text.partition("=")
        if not (name.strip() and sign and column.strip()):
            raise UsageError(f"--map '{text}' is not of the form name=column; write e.g. --map findings=所见.")
        mapping[name.strip()] = column.strip()
    return mapping


@ingest_app.command("pathology")
def ingest_pathology(
    files: Annotated[list[Path], typer.Argument(help="Tables with a patient id and a pathology text.")],
    column: MapOption = None,
    encoding: EncodingOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read pathology texts: one subtype a patient, examination or nodule; conflicts are listed and left out.

    Example: tigerdata ingest pathology corpus/pathology.csv -w study
    """
    from tigerdata.reports import ingest

    workspace_ = open_workspace(workspace)
    show(ingest.ingest_pathology(workspace_, files, reporter(), mapping=_columns(column), encoding=encoding), as_json)


@ingest_app.command("images")
def ingest_images(
    path: Annotated[Path, typer.Argument(help="Folder or table of images.")],
    source: Annotated[str, typer.Option(help=f"How to read it: {', '.join(SOURCES)}.")] = "csv",
    column: MapOption = None,
    pattern: Annotated[
        str | None,
        typer.Option(
            help="Links by file names: '{patient}_{exam}_{n}.png', or a regular expression with named groups; patient,"
            " exam, report, label, plane and cohort link, other names do not. A name that does not match is refused."
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that decode; 0: one a core. Changes no result.")] = 0,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read images and masks: clean grey frames, links to patients and examinations, duplicates, rejects by reason.

    A public set's own descriptors become findings, so that an image without a report is described too.

    Example: tigerdata ingest images corpus -w study
    """
    from tigerdata.images import ingest
    from tigerdata.processes import cores

    result = ingest.ingest_images(
        open_workspace(workspace),
        path,
        source=source,
        progress=reporter(),
        mapping=_columns(column),
        pattern=pattern,
        workers=workers or cores(),
    )
    show(result, as_json)


@ingest_app.command("masks")
def ingest_masks(
    path: Annotated[Path, typer.Argument(help="Folder of masks or of YOLO labels, or a COCO JSON file.")],
    format: Annotated[str, typer.Option(help="png (mask images), coco or yolo (polygons).")] = "png",
    kind: Annotated[str, typer.Option(help="What they outline: nodule or gland.")] = "nodule",
    only: Annotated[
        str | None, typer.Option("--class", help="Only this class: a COCO category by name, a YOLO class by number.")
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Attach masks that another tool made to images that are here, by file name or image id.

    Example: tigerdata ingest masks corpus/glands --kind gland -w study
    """
    from tigerdata.regions.imports import import_masks

    show(import_masks(open_workspace(workspace), path, format, kind, only, progress=reporter()), as_json)


@data_app.command("segment")
def segment(
    kind: Annotated[str, typer.Option(help="What to outline: nodule or gland.")] = "nodule",
    weights: Annotated[
        Path | None, typer.Option(help="Segmenter, a folder or a file; default: the one trained in this workspace.")
    ] = None,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Confidence below which a mask is not kept.")] = 0.25,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the nodule, or the gland, in every image that has no such mask yet.

    Example: tigerdata segment --kind nodule -w study
    """
    from tigerdata import regions

    ws = open_workspace(workspace)
    show(regions.segment(ws, weights, min_score=min_score, kind=kind, progress=reporter()), as_json)


@data_app.command("check")
def check(
    strict: Annotated[bool, typer.Option("--strict", help="Exit with code 3 when an image is flagged.")] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every image: one score and one flag a check, stored in the table `checks`, and what to do next.

    Example: tigerdata check -w study
    """
    from tigerdata import check as checks

    result = checks.check(open_workspace(workspace), progress=reporter())
    if as_json:
        show(result, as_json)
    else:
        from tigerdata.tables import show_table

        rows = [{"check": name, "says": checks.CHECKS[name][0], **row} for name, row in result["checks"].items()]
        columns = ("check", "says", "scored", "flagged", "threshold", "worst", "image")
        show_table(f"{result['flagged']} of {result['images']} images are flagged", rows, columns)
        for name in ("mask_flags", "rejected"):
            if result[name]:
                show({name.replace("_", " "): result[name]}, as_json)
        typer.echo(result["next"])
    if strict and result["flagged"]:
        raise typer.Exit(EXIT_GATE)


@data_app.command("view")
def view(
    out: Annotated[Path, typer.Option("--out", help="HTML file to write.")],
    label: Annotated[str | None, typer.Option(help="Only this class.")] = None,
    flag: Annotated[str | None, typer.Option(help="Only images with this flag of `tigerdata check`.")] = None,
    split: Annotated[str | None, typer.Option(help="Only this part of the split: train, val, test or pool.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many images, evenly taken.")] = 500,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a gallery to look at: frame, outlines, Sobel map and prompt side by side, with filters, in one HTML file.

    Example: tigerdata view --out gallery.html -w study
    """
    from tigerdata import view as gallery

    study = open_workspace(workspace)
    show(gallery.view(study, out, label, flag, split, limit, progress=reporter()), as_json)


@data_app.command("locate")
def locate(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Measure where nodules lie in their glands and derive the pole that no text states; marked as derived.

    Example: tigerdata locate -w study
    """
    from tigerdata.regions import locations

    result = locations.locate(open_workspace(workspace))
    if as_json:
        show(result, as_json)
        return
    from tigerdata.tables import show_table

    table = result.pop("table")
    show_table("Nodules in their glands", table, locations.COLUMNS)
    show(result, as_json)


@data_app.command("split")
def split(
    val: Annotated[float, typer.Option(min=0, max=0.9, help="Share of patients for validation.")] = 0.15,
    test: Annotated[float, typer.Option(min=0, max=0.9, help="Share of patients for the test.")] = 0.15,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
    folds: Annotated[
        int, typer.Option(min=0, help="Also this many folds for cross-validation, stored as default-fold1 and so on.")
    ] = 0,
    from_cohort: Annotated[bool, typer.Option("--from-cohort", help="Take the cohort column of the images.")] = False,
    rare: Annotated[str, typer.Option(help="Make classes rare for an experiment: class=images in training.")] = "",
    allow_missing_patients: Annotated[
        bool, typer.Option("--allow-missing-patients", help="Split images without a patient id one by one.")
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Split by patient, stratified by class; patients and duplicates are never in two parts, nor in two folds' tests.

    Example: tigerdata split --from-cohort -w study
    """
    from tigerdata import splits

    study = open_workspace(workspace)
    # Folds first: a number of folds that is not possible is refused before anything is written.
    dealt = splits.split_folds(study, folds, val, seed, allow_missing_patients=allow_missing_patients) if folds else {}
    result: dict[str, Any] = splits.split(
        study,
        val=val,
        test=test,
        seed=seed,
        from_cohort=from_cohort,
        allow_missing_patients=allow_missing_patients,
        rare=_counts(rare, "--rare") or None,
    )
    if dealt:
        result["folds"] = dealt
    if said := splits.remarks(study):
        result["remarks"] = said
    show(result, as_json)


@data_app.command("prompts")
def prompts(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Write the nodule (FG) and background (BG) prompt of every image from its findings.

    Example: tigerdata prompts -w study
    """
    from tigerdata.prompts import build_prompts

    show(build_prompts(open_workspace(workspace)), as_json)


@data_app.command("export")
def export(
    out: Annotated[Path, typer.Option("--out", help="New folder.")],
    run: Annotated[Path | None, typer.Option(help="Augmented folder; without it only real images.")] = None,
    format: Annotated[str, typer.Option(help=f"One of: {', '.join(FORMATS)}.")] = "imagefolder",
    size: Annotated[
        int | None, typer.Option(min=8, help="Side in pixels; default: that of the generated images, or as they are.")
    ] = None,
    ratio: Annotated[
        float | None, typer.Option(min=0, help="At most so many generated images a real training image of the class.")
    ] = None,
    rgb: Annotated[bool, typer.Option("--rgb", help="Three equal channels instead of gray.")] = False,
    licence: Annotated[str, typer.Option(help="Licence of the data set, for the card. Asked for.")] = "",
    consent: Annotated[str, typer.Option(help="Consent and ethics approval, for the card. Asked for.")] = "",
    collection: Annotated[str, typer.Option(help="How, where and when images were collected, for the card.")] = "",
    contact: Annotated[str, typer.Option(help="Whom to write to, for the card.")] = "",
    draft: Annotated[
        bool, typer.Option("--draft", help="For yourself: do without licence and consent; the card says so.")
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export real and accepted generated images with a data card; refused when something would leak.

    The statements for the card can also stand in the table [statements] of tiger.toml. Without --run only real images
    are written. The result names the fields that the format cannot carry.

    Example: tigerdata export --out dataset --run augmented --ratio 1 --licence CC-BY-4.0 --consent "none needed:
    simulated patients" -w study
    """
    from tigerdata import export as exporters

    said = {"licence": licence, "consent": consent, "collection": collection, "contact": contact}
    ws = open_workspace(workspace)
    result = exporters.export(
        ws, out, run=run, format=format, size=size, statements=said, ratio=ratio, rgb=rgb, draft=draft
    )
    show(result, as_json)
