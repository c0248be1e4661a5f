"""`croissant.json`: the data set in Croissant 1.1 (MLCommons), JSON-LD with the RAI vocabulary.

The context is the specification's own. Loose images are one FileSet, and `images.csv`, whose hash stands here, holds
the hash of each; every other file is a FileObject with its SHA-256. The property `rai:dataDataManipulationProtocol`
is spelled as the reader `mlcroissant` 1.1.1 has it; the specification's own spelling stands beside it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from kb.files import sha256_file, write_json
from tigerdata.card import BORROWED, LABELS, PERSONAL, USES, Card
from tigerdata.export.table import COLUMNS

CROISSANT, RAI = "http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"
# The short names of the vocabulary that stand for `cr:` and the same name.
_TERMS = (
    ("arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field", "fileProperty")
    + ("fileObject", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5")
    + ("parentField", "path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate", "separator")
    + ("source", "subField", "transform")
)
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    **{term: f"cr:{term}" for term in _TERMS},
}
TYPES = {
    ".csv": "text/csv", ".json": "application/json", ".jsonl": "application/jsonlines", ".md": "text/markdown",
    ".npz": "application/zip", ".parquet": "application/vnd.apache.parquet", ".png": "image/png",
    ".tar": "application/x-tar", ".txt": "text/plain", ".yaml": "application/yaml",
}  # fmt: skip
# One a image: they are counted in a FileSet and not listed. A label text of YOLO belongs to its image.
LOOSE = (".png", ".txt")
CITED = ("published", "url")
SPLIT_URLS = {"train": "cr:TrainingSplit", "val": "cr:ValidationSplit", "test": "cr:TestSplit"}


def write(folder: Path, card: Card) -> None:
    """Describe every file of the folder; call it when all but this file and `export.json` are there."""
    statements = card.statements
    content: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [CROISSANT, RAI],
        "name": card.title,
        "description": card.summary(),
        "version": "1.0.0",
        "keywords": ["ultrasound", "medical imaging", *(["synthetic data"] if card.synthetic else [])],
        "isLiveDataset": False,
        "distribution": _files(folder),
        "recordSet": [_splits(card), _classes(card), _images()],
        **_responsible(card),
    }
    for name, said in (("license", "licence"), ("datePublished", "published"), ("url", "url")):
        if statements.get(said):
            content[name] = statements[said]
    if statements.get("creator"):
        content["creator"] = {"@type": "sc:Organization", "name": statements["creator"]}
        content["citeAs"] = ", ".join(filter(None, (statements["creator"], card.title, *map(statements.get, CITED))))
    write_json(folder / "croissant.json", content)


def _files(folder: Path) -> list[dict[str, Any]]:
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    out: list[dict[str, Any]] = []
    for suffix, name in zip(LOOSE, ("image-files", "label-files"), strict=True):
        nested = [f for f in files if f.endswith(suffix) and "/" in f]
        if nested:
            tops = sorted({PurePosixPath(f).parent.as_posix() for f in nested})
            one: dict[str, Any] = {"@type": "cr:FileSet", "@id": name, "name": name, "encodingFormat": TYPES[suffix]}
            out.append({**one, "includes": [f"{top}/*{suffix}" for top in tops]})
    for name in files:
        if "/" in name and name.endswith(LOOSE):
            continue
        path = folder / name
        kind = TYPES.get(path.suffix, "application/octet-stream")
        file: dict[str, Any] = {"@type": "cr:FileObject", "@id": name, "name": name, "contentUrl": name}
        file |= {"encodingFormat": kind, "contentSize": f"{path.stat().st_size} B", "sha256": sha256_file(path)}
        out.append(file)
    return out


def _column(name: str, about: str) -> dict[str, Any]:
    kind = {"synthetic": "sc:Boolean"}.get(name, "sc:Text")
    source: dict[str, Any] = {"fileObject": {"@id": "images.csv"}, "extract": {"column": name}}
    out: dict[str, Any] = {"@type": "cr:Field", "@id": f"images/{name}", "name": f"images/{name}", "description": about}
    out |= {"dataType": kind, "source": source}
    links = {"split": "splits/name", "label": "classes/name"}
    return out | ({"references": {"field": {"@id": links[name]}}} if name in links else {})


def _images() -> dict[str, Any]:
    fields = [_column(name, about) for name, about in COLUMNS.items()]
    key = {"@id": "images/image_id"}
    return {"@type": "cr:RecordSet", "@id": "images", "name": "images", "key": key, "field": fields}


def _enumeration(name: str, kind: Sequence[str], fields: Mapping[str, str], data: list[dict[str, Any]]) -> Any:
    out = {"@type": "cr:RecordSet", "@id": name, "name": name, "dataType": list(kind)}
    listed = [
        {"@type": "cr:Field", "@id": f"{name}/{f}", "name": f"{name}/{f}", "dataType": t} for f, t in fields.items()
    ]
    named = [{f"{name}/{f}": value for f, value in row.items()} for row in data]
    return {**out, "key": {"@id": f"{name}/name"}, "field": listed, "data": named}


def _splits(card: Card) -> dict[str, Any]:
    found = sorted({c.split for c in card.counts}, key=list(SPLIT_URLS).index)
    data = [{"name": split, "url": SPLIT_URLS[split]} for split in found]
    done: dict[str, Any] = _enumeration("splits", ("cr:Split",), {"name": "sc:Text", "url": "sc:URL"}, data)
    return done


def _classes(card: Card) -> dict[str, Any]:
    data = [{"name": label, "number": n} for n, label in enumerate(sorted({c.label for c in card.counts}))]
    fields = {"name": "sc:Text", "number": "sc:Integer"}
    done: dict[str, Any] = _enumeration("classes", ("sc:Enumeration",), fields, data)
    return done


def _responsible(card: Card) -> dict[str, Any]:
    """The RAI fields that are known here; what only the owner knows comes from the statements or is left out."""
    statements = card.statements
    out: dict[str, Any] = {
        "rai:dataCollection": statements.get("collection"),
        "rai:dataPreprocessingProtocol": list(card.preprocessing),
        "rai:dataAnnotationProtocol": [LABELS],
        "rai:dataUseCases": [USES],
        "rai:dataLimitations": [*([BORROWED] if card.synthetic else []), *card.remarks],
        "rai:personalSensitiveInformation": [PERSONAL, *filter(None, [statements.get("consent")])],
        "rai:annotatorDemographics": statements.get("annotation"),
        "rai:dataBiases": list(filter(None, [statements.get("population"), statements.get("limits")])),
        "rai:dataSocialImpact": statements.get("impact"),
        "rai:dataReleaseMaintenancePlan": statements.get("contact"),
    }
    if card.synthetic:
        how = "; ".join(f"{name}: {value}" for name, value in card.generator.items())
        out["rai:dataManipulationProtocol"] = out["rai:dataDataManipulationProtocol"] = (
            f"{card.synthetic} images of the training part were generated by a model and are marked ({how})."
        )
    return {name: value for name, value in out.items() if value}
