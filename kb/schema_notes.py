"""What every table and column of the schema holds; docs/schema.md is made from it and from the schema itself.

A test fails when a column has no note, or a note has no column.
"""

from __future__ import annotations

_WHO = {
    "patient_id": "pseudonym of the patient, the same in all tables",
    "exam_id": "pseudonym of the examination",
}
_PHI = {
    "phi": "level at which personal data was removed: standard or strict",
    "phi_rules": "version of the rules that removed it",
}
_CHECKS = {
    "blur": "sharpness within the sector",
    "dark": "brightness of the sector's brightest parts",
    "low_information": "entropy of the sector's grey levels",
    "text": "freedom from writing",
    "odd_size": "nearness to the usual width and height",
    "truncated": "share of rows that are there",
    "duplicate": "one over the number of equal frames",
    "mask": "plausibility of the nodule mask",
    "disagreement": "agreement of the mask with what the text says",
    "few_patients": "patients of the class over the least number",
}
_REPORT = {
    "report_id": "pseudonym of the report; without a report id in the export, of its examination or its content",
    **_WHO,
    "exam_date": "ISO date, shifted by the patient's own number of days; empty if it could not be read surely",
    "language": "zh or en",
    "text": "the text without personal data, to which all offsets refer",
    "sha256": "hash of that text",
    "ingested_from": "file and line",
    "source_key": "keyed fingerprint of the row as it came; known fingerprints are not read again",
    **_PHI,
}

NOTES: dict[str, tuple[str, dict[str, str]]] = {
    "patients": (
        "One row a patient.",
        {
            "patient_id": _WHO["patient_id"],
            "sex": "as first stated",
            "age": "years, at most 90, as first stated",
            "source": "where the patient was first seen",
        },
    ),
    "reports": ("One row a report, its newest version.", _REPORT),
    "report_versions": (
        "Older texts of corrected reports, with the facts that were read from them.",
        {
            **_REPORT,
            "version": "1 is the oldest; the newest is in `reports`",
            "text": "the older text; empty after a later ingest with --phi strict",
            "findings": "rows of `findings` of this version, as JSON",
        },
    ),
    "nodules": (
        "One row a described nodule, from a report or from the descriptors of an image set.",
        {
            "nodule_id": "report and number, or image and number",
            "report_id": "the report that describes it; empty if an image set does",
            "image_id": "the image that a set's descriptors are of; empty for reports",
            **_WHO,
            "ordinal": "place in the report, from 1",
            "multiple": "whether the entry stands for several nodules (多发, several)",
            "source": "report, or source:<name of the image set>",
        },
    ),
    "findings": (
        "One row a fact: a value, how sure the text is of it, and the characters that say so.",
        {
            "finding_id": "report and number",
            "nodule_id": "the nodule it is about; empty for gland, lymph nodes and diagnoses",
            "report_id": "the report it is from",
            "attribute": "one of the vocabulary's attributes, or diameter_mm, tirads, gland.…, lymph_nodes.…",
            "value": "value of the vocabulary",
            "number": "number, in mm for sizes",
            "certainty": "positive, uncertain or negated",
            "surface": "the words of the text",
            "start_char": "offset of the first character in `reports.text`",
            "end_char": "offset after the last character",
            "cue": "words that negate or hedge it",
            "rule": "rule of the parser, or source:<name of the image set>",
        },
    ),
    "pathology": (
        "One row a pathology text. Labels come from rows with an empty `conflict` only.",
        {
            "pathology_id": "fingerprint of the pathology number, or of the row",
            **_WHO,
            "nodule_ordinal": "number of the nodule, where the row names one",
            "subtype": "benign, PTC, FTC, MTC, ATC, other_malignant, indeterminate or none",
            "surface": "the words that name the entity; the text itself is not stored",
            "rule": "rule that read it, or source:<name of the image set>",
            "conflict": "what this row and others say of the same nodule, examination or patient, if they disagree",
            "own_conflict": "the entities that the text itself names side by side",
            "source_key": "keyed fingerprint of the row as it came",
            "ingested_from": "file and line",
        },
    ),
    "ingests": (
        "One row a file that brought something.",
        {
            "ingest_id": "running number",
            "kind": "reports, pathology or images",
            "file": "name of the file, or of the folder of texts",
            "encoding": "what its text was in",
            **_PHI,
            "rows_read": "rows of the file, or files of the set: stored, known and rejected ones add up to it",
            "stored": "rows stored, corrections among them",
            "corrected": "rows that replaced an older text",
            "already_known": "rows that were there before",
            "rejected": "rows refused; `rejects.csv` says why",
            "removed": "pieces of personal data removed, by kind",
        },
    ),
    "pseudonyms": (
        "How ids are stored; one row.",
        {
            "policy": "keyed, or kept where ids are stored as given",
            "key_check": "says whether `tiger.key` is the right key, without saying anything of the key",
        },
    ),
    "images": (
        "One row an image frame.",
        {
            "image_id": "first 16 digits of the file's SHA-256; further views of a panel have an own one",
            "sha256": "hash of the file",
            "path": "where the original lies",
            "width": "pixels",
            "height": "pixels",
            **_WHO,
            "plane": "transverse or longitudinal, if known",
            "label": "class that the image set states",
            "cohort": "part that the image set states",
            "source": "how it was read: the name of its reader, such as csv, imagefolder or ddti",
            "rejected": "why it is not used; empty if it is",
            "mm_per_pixel": "side of a pixel in mm; empty where nobody states it",
            "report_id": "pseudonym of the report that the image set links it to",
            "frame": "number in a file of several frames, from 0",
            "read_as": "what was done to get 8-bit grey levels: depth, window, palette, alpha, turn",
            "burned_in": "whether a DICOM header says that text is drawn into the pixels; empty if it says nothing",
            "file_width": "pixels of the file that the frame was cut from",
            "file_height": "pixels of the file that the frame was cut from",
        },
    ),
    "cleaning": (
        "What was cut and masked of an image, one row a clean frame, in pixels of the original.",
        {
            "image_id": "the image",
            "crop_left": "first column of the original that the clean frame shows",
            "crop_top": "first row",
            "crop_right": "column after the last one",
            "crop_bottom": "row after the last one",
            "masked": "kind (text, ruler, mark, colour, surround) and its boxes: left, top, right, bottom",
            "lost": "share of the scanned field that was filled",
        },
    ),
    "fingerprints": (
        "What duplicates are found by, of each clean frame.",
        {
            "image_id": "the image",
            "pixel_hash": "SHA-256 of shape and grey levels",
            "perceptual_hash": "64 signs of the lowest cosine frequencies",
            "thumbnail": "20 x 20 grey levels",
        },
    ),
    "duplicates": (
        "One row an image that is there more than once, in whatever form.",
        {
            "image_id": "the image",
            "duplicate_group": "first image of its group; a split keeps a group together",
            "nearest_id": "the image it is most like",
            "kind": "pixels (equal ones) or near",
            "correlation": "with the nearest, of band-passed thumbnails; 1 for equal pixels",
            "mirrored": "whether it is the nearest one's mirror image",
        },
    ),
    "regions": (
        "Masks.",
        {
            "region_id": "image and kind",
            "image_id": "the image",
            "kind": "nodule or gland",
            "path": "file of the mask, below the workspace",
            "origin": "import:<source or format>, or the segmenter that drew it",
            "area": "share of the frame",
            "score": "confidence of the segmenter",
            "flags": "what is odd about it",
        },
    ),
    "checks": (
        "What `tigerdata check` found: one score (1 nothing wrong, 0 as bad as can be) and one flag a check. Both are "
        "empty where a check could not be made.",
        {
            "image_id": "the image",
            **{
                column: note
                for name, what in _CHECKS.items()
                for column, note in (
                    (f"{name}_score", what),
                    (f"is_{name}", "whether the score is below its threshold"),
                )
            },
            "mask_flags": "what is odd about the nodule mask",
            "disagrees_on": "size, aspect, side, pole or gland: where mask and text disagree",
        },
    ),
    "prompts": (
        "The prompts of an image.",
        {
            "image_id": "the image",
            "nodule_id": "the nodule it shows",
            "label": "class, by pathology before the set's own",
            "fg": "prompt of the nodule",
            "bg": "prompt of plane, place and image quality",
            "attributes": "the values behind both, as JSON",
        },
    ),
    "terms": (
        "The vocabulary.",
        {
            "attribute": "attribute",
            "value": "value",
            "phrase": "token phrase in prompts, unique over all attributes",
            "scope": "fg or bg",
            "language": "of the surface",
            "surface": "a wording that reports use for it",
        },
    ),
    "term_roles": (
        "Which terms are particular to a class, joint to several, or common.",
        {
            "target": "class",
            "attribute": "attribute",
            "value": "value",
            "role": "particular, joint or common",
            "source": "where the role is from",
            "statistics": "figures, where the role was computed from a corpus",
        },
    ),
    "sources": ("The literature behind roles and vocabulary.", {"source_id": "short name", "citation": "citation"}),
    "splits": (
        "Which image is in which part.",
        {"name": "name of the split", "image_id": "image", "patient_id": "its patient", "split": "train, val or test"},
    ),
    "models": (
        "Trained models.",
        {
            "model_id": "derived from what it was trained on and with",
            "kind": "segmenter, judge, vae, coarse or fine",
            "path": "folder, below the workspace",
            "sha256": "hash of its weights",
            "trained_on": "the images and model behind it",
            "settings": "settings of the training, as JSON",
        },
    ),
    "runs": (
        "Generation runs.",
        {"run_id": "id", "command": "command", "settings": "settings, as JSON", "status": "state"},
    ),
    "samples": (
        "Generated images.",
        {
            "run_id": "run",
            "sample_index": "number of the image in the run",
            "label": "class",
            "path": "file",
            "sha256": "hash of the file",
            "fg": "prompt of the nodule",
            "bg": "prompt of the background",
            "donor_image_id": "real image whose edges were used",
            "mask_image_id": "real image whose mask was used",
            "seed": "seed",
            "model_id": "model",
            "accepted": "whether the gates let it pass",
            "reason": "why not",
            "scores": "scores of the gates, as JSON",
        },
    ),
    "schema_version": ("Steps of the schema that this file has been through.", {"version": "number of a step"}),
}
