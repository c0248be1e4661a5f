"""The sample pairs of the Tiger paper's released repository: images, nodule masks, Sobel maps and two prompts each.

Layout: `init_image/` with the images and `metadata.jsonl` (`text_nd` of the nodule, `text_bg` of the background),
`condition_FG/` with masks and `condition_BG/` with Sobel maps, files of one image with one stem. The Sobel maps are not
taken over: every condition of a workspace is made by `conditions.build`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kb import KnowledgeBase
from tigerdata.sources.records import Descriptor, ImageRecord, SourceSet, Words, require
from tigerdata.sources.table import rows

IMAGES, MASKS, SOBEL, TABLE = "init_image", "condition_FG", "condition_BG", "metadata.jsonl"
# Words that stand alone in a prompt, which a report would not use so; the attribute is that of the release's own list
# (source-data workbook, "Supplementary Table 4"). All other words are read by the report parser.
BARE: Words = {
    "text_nd": {
        "regular": (("shape", "regular"),),
        "irregular": (("shape", "irregular"),),
        "clear": (("margin", "clear"),),
        "unclear": (("margin", "unclear"),),
        "smooth": (("margin", "smooth"),),
        "absent": (("calcification", "absent"),),
        "rim": (("calcification", "rim_calcification"),),
        "unevenly thick": (("halo", "unevenly_thick"),),
        "intermittent": (("halo", "interrupted"),),
        "botryoid": (("echotexture", "botryoid"),),
        "high echogenic foci": (("echotexture", "high_echogenic_foci"),),
        **{f"{size}{noun}": (("diameter", size),) for size in ("small", "middle", "large") for noun in ("", " nodule")},
        "malignant": (),
        "benign": (),
    },
    "text_bg": {},
}
CLASSES = {"benign": "benign", "papillary": "PTC", "follicular": "FTC", "medullary": "MTC", "anaplastic": "ATC"}
PLANES = ("transverse", "longitudinal", "oblique")


def read(path: Path, base: KnowledgeBase, settings: Mapping[str, Any]) -> SourceSet:
    """Read the folder that holds `init_image`, or that folder; UserError without its `metadata.jsonl`.

    The names of the conditions in the table have wrong suffixes: they are found by the image's stem. The release names
    no patients. Image-quality words of the background are left: they are measured from the pixels.
    """
    require(base, "tiger-release", BARE, "thyroid")
    root = path.parent if path.name == IMAGES else path
    given = SourceSet("tiger-release", root)
    _, listed = rows(root / IMAGES / TABLE, given)
    for where, row in listed:
        name = row.get("file_name", "")
        stem = Path(name).stem
        masks = _with_stem(root / MASKS, stem)
        given.counts["file_without_mask"] += not masks
        given.counts["sobel_maps_left"] += bool(_with_stem(root / SOBEL, stem))
        plane, placed = _background(row.get("text_bg", ""), base, given, where)
        prompt = row.get("text_nd", "")
        label = next((CLASSES[w] for p in _phrases(prompt) if (w := p.split()[0]) in CLASSES), None)
        given.records.append(
            ImageRecord(
                file=f"{IMAGES}/{name}",
                where=where,
                plane=plane,
                label=label,
                masks={"nodule": masks} if masks else {},
                descriptors=(*_nodule(prompt, base, given, where), *placed),
            )
        )
    given.counts["image_without_patient"] = len(given.records)
    return given


def _with_stem(folder: Path, stem: str) -> tuple[str, ...]:
    found = sorted(p for p in folder.iterdir() if p.stem == stem) if folder.is_dir() and stem else []
    return tuple(f"{folder.name}/{p.name}" for p in found[:1])


def _phrases(prompt: str) -> list[str]:
    return [part.strip().lower() for part in prompt.replace("，", ",").split(",") if part.strip()]


def _nodule(prompt: str, base: KnowledgeBase, given: SourceSet, where: str) -> Iterator[Descriptor]:
    """What a nodule prompt says, each statement once: bare words by the list, the rest by the parser."""
    from tigerdata.reports.parser import parse

    seen: set[tuple[str, str]] = set()
    for phrase in _phrases(prompt):
        if phrase.removesuffix(" nodule") in CLASSES and phrase != "benign":
            continue
        if phrase in BARE["text_nd"]:
            found = list(given.translate(BARE, "text_nd", phrase, where))
        else:
            # A phrase alone is no sentence about a nodule for the parser.
            rows_ = [
                e for e in parse(f"Nodule, {phrase}.", base.domain)["evidence"] if e["path"].startswith("nodules[0]")
            ]
            found = [
                Descriptor(attribute, e["value"], e["surface"], e["certainty"])
                for e in rows_
                if (attribute := e["path"].split(".")[1].partition("[")[0]) in base.attributes
            ]
            if not found:
                list(given.translate(BARE, "text_nd", phrase, where))  # counts it
        for said in found:
            if (said.attribute, said.value) not in seen:
                seen.add((said.attribute, said.value))
                yield said


def _background(prompt: str, base: KnowledgeBase, given: SourceSet, where: str) -> tuple[str | None, list[Descriptor]]:
    plane, placed = None, []
    quality = {phrase for phrases in base.quality.values() for phrase in phrases}
    for phrase in _phrases(prompt):
        first, *words = phrase.split()
        if phrase in quality:
            continue
        for word in words if first == "sonogram" else [phrase]:
            if word in PLANES:
                plane = word
            elif word in base.attributes["nodule_location"].values:
                placed.append(Descriptor("nodule_location", word, word))
            elif word != "plane":
                list(given.translate(BARE, "text_bg", word, where))  # counts it
    return plane, placed
