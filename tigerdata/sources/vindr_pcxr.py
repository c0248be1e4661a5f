"""VinDr-PCXR, chest radiographs of children (Pham et al. 2022, doi 10.13026/k8qc-na36): findings in boxes, diseases.

Layout: `train/` and `test/` with `<image_id>.dicom`, `annotations_<part>.csv` (one row a box: image_id, class_name,
x_min, y_min, x_max, y_max) and `image_labels_<part>.csv` (one column of 0 and 1 a disease). The boxes of an image
become its region, as rectangles: no outline of a finding is published.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kb import KnowledgeBase
from kb.errors import UserError
from tigerdata.sources.records import Descriptor, ImageRecord, Outline, SourceSet, Words, require
from tigerdata.sources.table import rows

PARTS = ("train", "test")
DICOM = (".dicom", ".dcm")
SUFFIXES = (*DICOM, ".png", ".jpg", ".jpeg")  # converted copies are common
BOX = ("x_min", "y_min", "x_max", "y_max")


def _words(value: str, *words: str) -> dict[str, tuple[tuple[str, str], ...]]:
    return {word: (("finding", value),) for word in words}


# In lower case; where the published tables misspell a name, the right spelling is known as well.
VOCABULARY: Words = {
    "class_name": {
        "no finding": (),
        **_words("boot_shaped_heart", "boot-shaped heart"),
        **_words("peribronchovascular_interstitial_opacity", "peribronchovascular interstitial opacity"),
        **_words("reticulonodular_opacity", "reticulonodular opacity"),
        **_words("bronchial_thickening", "bronchial thickening"),
        **_words("enlarged_pa", "enlarged pa"),
        **_words("cardiomegaly", "cardiomegaly"),
        **_words("diffuse_alveolar_opacity", "diffuse aveolar opacity", "diffuse alveolar opacity"),
        **_words("other_opacity", "other opacity"),
        **_words("other_lesion", "other lesion"),
        **_words("consolidation", "consolidation"),
        **_words("mediastinal_shift", "mediastinal shift"),
        **_words("anterior_mediastinal_mass", "anterior mediastinal mass"),
        **_words("dextrocardia", "dextro cardia", "dextrocardia"),
        **_words("pleural_effusion", "pleural effusion"),
        **_words("stomach_on_right_side", "stomach on the right side"),
        **_words("atelectasis", "atelectasis"),
        **_words("lung_hyperinflation", "lung hyperinflation"),
        **_words("egg_on_string_sign", "egg on string sign"),
        **_words("interstitial_lung_disease", "interstitial lung disease - ild", "interstitial lung disease"),
        **_words("infiltration", "infiltration"),
        **_words("lung_cavity", "lung cavity"),
        **_words("pneumothorax", "pneumothorax"),
        **_words("edema", "edema"),
        **_words("pleural_thickening", "pleural thickening"),
        **_words("other_nodule_mass", "other nodule/mass"),
        **_words("clavicle_fracture", "clavicle fracture"),
        **_words("chest_wall_mass", "chest wall mass"),
        **_words("lung_cyst", "lung cyst"),
        **_words("emphysema", "emphysema"),
        **_words("bronchiectasis", "bronchectasis", "bronchiectasis"),
        **_words("expanded_edges_of_anterior_ribs", "expanded edges of the anterior ribs"),
        **_words("pulmonary_fibrosis", "pulmonary fibrosis"),
        **_words("paravertebral_mass", "paraveterbral mass", "paravertebral mass"),
        **_words("aortic_enlargement", "aortic enlargement"),
        **_words("calcification", "calcification"),
        **_words("intrathoracic_digestive_structure", "intrathoracic digestive structure"),
    }
}
# Columns of the disease tables; the first four are the classes of the vocabulary.
DISEASES = {
    "bronchitis": "bronchitis", "brocho-pneumonia": "bronchopneumonia", "broncho-pneumonia": "bronchopneumonia",
    "bronchiolitis": "bronchiolitis", "pneumonia": "pneumonia", "no finding": "no_finding",
    "other disease": "other_disease", "situs inversus": "situs_inversus", "pleuro-pneumonia": "pleuropneumonia",
    "diagphramatic hernia": "diaphragmatic_hernia", "diaphragmatic hernia": "diaphragmatic_hernia",
    "tuberculosis": "tuberculosis", "congenital emphysema": "congenital_emphysema", "cpam": "cpam",
    "hyaline membrane disease": "hyaline_membrane_disease", "mediastinal tumor": "mediastinal_tumor",
    "lung tumor": "lung_tumor",
}  # fmt: skip
NO_DISEASE = ("image_id", "rad_id")


def read(path: Path, base: KnowledgeBase, settings: Mapping[str, Any]) -> SourceSet:
    """Read the parts train and test of the published folder; UserError when it has neither part's tables.

    An image with one disease has it as its class, one with several has none (counted). The set names no patients.
    """
    require(base, "vindr-pcxr", VOCABULARY, "chest")
    parts = [part for part in PARTS if (path / f"image_labels_{part}.csv").is_file()]
    if not parts:
        raise UserError(f"{path} holds no image_labels_train.csv or image_labels_test.csv; give the folder that does.")
    given = SourceSet("vindr-pcxr", path)
    for part in parts:
        _part(path, part, given)
    given.counts["image_without_patient"] = len(given.records)
    return given


def _part(path: Path, part: str, given: SourceSet) -> None:
    labels = _labels(path / f"image_labels_{part}.csv", given)
    findings, boxes = _boxes(path / f"annotations_{part}.csv", given)
    files = {p.stem: p for p in sorted((path / part).glob("*")) if p.suffix.lower() in SUFFIXES}
    for image, file in files.items():
        where, label = labels.pop(image, (f"{part}/{file.name}", None))
        given.counts["file_without_row"] += label is None
        drawn = tuple(boxes.get(image, ()))
        given.records.append(
            ImageRecord(
                file=f"{part}/{file.name}",
                where=where,
                cohort=part,
                label=label or None,
                outlines={"nodule": drawn} if drawn else {},
                descriptors=tuple(findings.get(image, {}).values()),
            )
        )
    given.counts["row_without_file"] += len(labels)
    given.counts["boxes_as_region"] += sum(len(drawn) for image, drawn in boxes.items() if image in files)


def _labels(table: Path, given: SourceSet) -> dict[str, tuple[str, str]]:
    """Place and class of each image; the empty class stands for several diseases, or none that is marked."""
    names, listed = rows(table, given)
    for name in names:
        if name.lower() not in (*DISEASES, *NO_DISEASE):
            given.unknown[f"{table.name}={name}"] += 1
    found = {}
    for where, row in listed:
        marked = {DISEASES[n.lower()] for n, cell in row.items() if n.lower() in DISEASES and cell in ("1", "1.0")}
        given.counts["several_diseases"] += len(marked) > 1
        found[row.get("image_id", "")] = (where, marked.pop() if len(marked) == 1 else "")
    return found


def _boxes(table: Path, given: SourceSet) -> tuple[dict[str, dict[str, Descriptor]], dict[str, list[Outline]]]:
    """Findings of each image, each once, and their boxes as rectangles."""
    findings: dict[str, dict[str, Descriptor]] = defaultdict(dict)
    boxes: dict[str, list[Outline]] = defaultdict(list)
    if not table.is_file():
        given.counts["no_annotations"] += 1
        return findings, boxes
    for where, row in rows(table, given)[1]:
        image, word = row.get("image_id", ""), row.get("class_name", "")
        said = list(given.translate(VOCABULARY, "class_name", word.lower(), where))
        for one in said:
            findings[image].setdefault(one.value, Descriptor(one.attribute, one.value, word))
        if not said:
            continue
        try:
            left, top, right, bottom = (float(row.get(name, "")) for name in BOX)
        except ValueError:
            given.reject(where, "BROKEN_BOX")
            continue
        if right > left and bottom > top:
            boxes[image].append(((left, top), (right, top), (right, bottom), (left, bottom)))
        else:
            given.reject(where, "EMPTY_BOX")
    return findings, boxes
