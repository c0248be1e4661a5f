"""The BrEaST set of breast lesions (Pawlowska et al. 2024, Sci Data 11:148): images, masks, BI-RADS words, histology.

Layout: `case<nnn>.png` images, `case<nnn>_tumor.png` and `case<nnn>_other<n>.png` masks, and a workbook with one row a
patient. Tumour masks become the nodule; the masks of other lesions stay out, because the descriptors are not of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kb import KnowledgeBase
from kb.errors import UserError
from tigerdata.reports import person
from tigerdata.sources.records import Descriptor, ImageRecord, SourceSet, Words, require
from tigerdata.sources.table import rows

WORKBOOK = "BrEaST*.xlsx"
JOINED = "&"
SILENT = ("not applicable", "not available")
NOT_CIRCUMSCRIBED = "not circumscribed"
VOCABULARY: Words = {
    "Shape": {word: (("shape", word),) for word in ("oval", "round", "irregular")},
    "Margin": {
        NOT_CIRCUMSCRIBED: (("margin", "not_circumscribed"),),
        **{w: (("margin", w),) for w in ("circumscribed", "indistinct", "angular", "microlobulated", "spiculated")},
    },
    "Echogenicity": {
        "heterogeneous": (("echogenicity", "heterogeneous_echo"),),
        "complex cystic/solid": (("echogenicity", "complex_cystic_solid"),),
        **{w: (("echogenicity", w),) for w in ("anechoic", "hyperechoic", "hypoechoic", "isoechoic")},
    },
    "Posterior_features": {
        "no": (("posterior", "none"),),
        **{w: (("posterior", w),) for w in ("enhancement", "shadowing", "combined")},
    },
    "Halo": {"no": (("halo", "absent"),), "yes": (("halo", "present"),)},
    # "indefinable" is known to the set and has no value here: it is counted.
    "Calcifications": {
        "no": (("calcification", "absent"),),
        "in a mass": (("calcification", "in_mass"),),
        "outside a mass": (("calcification", "outside_mass"),),
        "intraductal": (("calcification", "intraductal"),),
    },
    "Skin_thickening": {"no": (), "yes": (("associated", "skin_thickening"),)},
    # "lactating" is a state of the gland, not one of the lexicon's patterns of tissue: it is counted.
    "Tissue_composition": {
        "homogeneous: fat": (("tissue", "homogeneous_fat"),),
        "homogeneous: fibroglandular": (("tissue", "homogeneous_fibroglandular"),),
        "heterogeneous: predominantly fat": (("tissue", "heterogeneous"),),
        "heterogeneous: predominantly fibroglandular": (("tissue", "heterogeneous"),),
    },
}
LABELS = ("benign", "malignant", "normal")
CATEGORIES = ("0", "1", "2", "3", "4a", "4b", "4c", "5", "6")


def read(path: Path, base: KnowledgeBase, settings: Mapping[str, Any]) -> SourceSet:
    """Read a folder of BrEaST files; UserError without its workbook, or with several.

    A row without an image is counted: a part of the set can be read. The class of an image is the set's own (benign,
    malignant, normal); histology that a biopsy gave goes to the pathology of the patient, which comes first.
    """
    require(base, "breast", VOCABULARY, "breast")
    books = sorted(path.glob(WORKBOOK)) if path.is_dir() else []
    if len(books) != 1:
        raise UserError(f"{path} holds {len(books)} workbooks {WORKBOOK}, not one; give the folder of the BrEaST set.")
    given = SourceSet("breast", path)
    names, listed = rows(books[0], given)
    needed = {"CaseID", "Image_filename", "Mask_tumor_filename", "Verification", "Diagnosis", "Classification"}
    if missing := {*VOCABULARY, *needed} - set(names):
        raise UserError(f"{books[0].name} lacks the column {sorted(missing)[0]}; it is no workbook of the BrEaST set.")
    for where, row in listed:
        for image in _parts(row["Image_filename"]):
            if (path / image).exists():
                given.records.append(_record(given, image, row, where))
            else:
                given.counts["row_without_file"] += 1
    return given


def _record(given: SourceSet, image: str, row: Mapping[str, str], where: str) -> ImageRecord:
    found = [d for column in VOCABULARY for d in _descriptors(given, column, row[column], where)]
    category = row.get("BIRADS", "").lower()
    if category in CATEGORIES:
        found.append(Descriptor("tirads", f"BI-RADS {category.upper()}", row["BIRADS"]))
    label = row["Classification"].lower()
    if label not in LABELS:
        given.unknown[f"Classification={label}"] += 1
        given.reject(where, "UNKNOWN_VALUE:Classification")
    given.counts["other_lesion_masks_left"] += len(_parts(row.get("Mask_other_filename", "")))
    verified = "biopsy" in row["Verification"] and row["Diagnosis"] not in ("", *SILENT)
    masks = tuple(_parts(row["Mask_tumor_filename"]))
    return ImageRecord(
        file=image,
        where=where,
        patient_id=f"breast-{row['CaseID']}",
        exam_id=f"breast-{row['CaseID']}",
        label=label if label in LABELS else None,
        age=person.age(row.get("Age", "")),
        masks={"nodule": masks} if masks else {},
        descriptors=tuple(found),
        pathology=row["Diagnosis"].replace(JOINED, "; ") if verified else None,
    )


def _descriptors(given: SourceSet, column: str, cell: str, where: str) -> Iterator[Descriptor]:
    if cell in SILENT:
        return
    # "not circumscribed - angular&indistinct": the kinds say more than that there is one.
    head, _, kinds = cell.partition(" - ")
    for word in _parts(kinds if column == "Margin" and head == NOT_CIRCUMSCRIBED and kinds else cell):
        yield from given.translate(VOCABULARY, column, word, where)


def _parts(cell: str) -> list[str]:
    return [part.strip() for part in cell.split(JOINED) if part.strip()] if cell not in SILENT else []
