"""What the data card says beyond counts: people, personal data, labels, copy check and quality, from what is recorded.

Nothing here is asked of the user, and nothing is made up: what a workspace or a run does not record is "not stated" or
"not measured". Groups of fewer than `SMALL` patients are not counted out, because a card is passed on.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kb.files import read_json
from tigerdata.card import NOT_MEASURED

if TYPE_CHECKING:
    import pandas as pd

NOT_STATED = "not stated"
SMALL = 5
# Layers of a copy check from cheap to dear: what rejects by it begins so, and the threshold's name in gates.json.
LAYERS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("1. equal pixels, also mirrored", ("copy: the pixels",), ()),
    ("2. perceptual hash, also mirrored", ("copy: the perceptual hash",), ("hash",)),
    (
        "3. correlation, shifts, sizes and mirrors, with any real training image",
        ("copy: too near to a real",),
        ("copy",),
    ),
    ("3a. the same with the donor's patient", ("copy: too near to its donor",), ("donor",)),
    ("3b. texture of the donor's nodule", ("copy: the nodule",), ("inside",)),
    ("3c. layout and nodule of the donor together", ("copy: layout and nodule",), ("donor_both",)),
    ("4. nearest neighbour in a feature space (texture)", ("copy: the texture",), ("texture",)),
    ("5. overfitting and membership", (), ("membership",)),
)


def people(ws: Any, real: "pd.DataFrame") -> dict[str, str]:
    """Whose images: patients, sex, age, source, plane; what is missing and what was left out."""
    with ws.connect(read_only=True) as con:
        cursor = con.cursor()
        cursor.register("shown", real[["image_id"]].astype("string"))
        patients = cursor.execute(
            """SELECT DISTINCT p.patient_id, nullif(p.sex, ''), p.age FROM shown JOIN images USING (image_id)
               JOIN patients p USING (patient_id)"""
        ).fetchall()
        images = cursor.execute(
            """SELECT coalesce(nullif(source, ''), ?), coalesce(nullif(plane, ''), ?), coalesce(patient_id, '') = ''
               FROM shown JOIN images USING (image_id)""",
            [NOT_STATED, NOT_STATED],
        ).fetchall()
        rejected = con.execute("SELECT rejected, count(*) FROM images WHERE rejected IS NOT NULL GROUP BY 1 ORDER BY 1")
        refused = dict(rejected.fetchall())
        row = con.execute("SELECT count(*) FROM pathology WHERE coalesce(conflict, '') <> ''").fetchone()
    silent = Counter(a for said in real["attributes"] for a in ws.kb.attributes if not said.get(a))
    unsaid = ", ".join(f"{a} {100 * n / max(1, len(real)):.0f} %" for a, n in sorted(silent.items()))
    return {
        "patients": f"{real['patient_id'].dropna().nunique():,}, {sum(lost for *_, lost in images):,} images of none",
        "sex": _counts(sex for _, sex, _ in patients),
        "age, years": _quartiles([age for *_, age in patients if age is not None]),
        "read by": _counts((source for source, *_ in images), small=0),
        "plane": _counts((plane for _, plane, _ in images), small=0),
        "attributes not stated": unsaid or "none",
        "images refused at ingest": ", ".join(f"{k} {n}" for k, n in refused.items()) or "none",
        "pathology in dispute, not used": str(row[0] if row else 0),
    }


def _counts(values: Any, small: int = SMALL) -> str:
    found = Counter(v or NOT_STATED for v in values)
    if not found:
        return NOT_STATED
    return ", ".join(f"{k} {n if n >= small else f'fewer than {small}'}" for k, n in sorted(found.items()))


def _quartiles(ages: Sequence[float]) -> str:
    import numpy as np

    if len(ages) < 4 * SMALL:
        return NOT_STATED if not ages else f"stated for {len(ages)} patients: too few to say more"
    low, middle, high = (round(float(v)) for v in np.quantile(ages, (0.25, 0.5, 0.75)))
    return f"median {middle}, quartiles {low} and {high}; stated for {len(ages):,} patients"


def privacy(ws: Any) -> dict[str, str]:
    """How personal data was removed from texts, ids and frames. No date: nothing that is stored depends on the day."""
    with ws.connect(read_only=True) as con:
        levels = con.execute("SELECT phi, phi_rules, count(*) FROM reports GROUP BY ALL ORDER BY ALL").fetchall()
        kept = con.execute("SELECT policy FROM pseudonyms").fetchone()
        cleaned = con.execute(
            "SELECT count(*), count(*) FILTER (json_array_length(masked) > 0) FROM cleaning"
        ).fetchone() or (0, 0)
    removed = "; ".join(f"{n:,} texts at level {level}, rules of version {rules}" for level, rules, n in levels)
    policy = kept[0] if kept else ws.settings["privacy"]["ids"]
    frames = f"{cleaned[1]:,} of {cleaned[0]:,} frames had text, rulers or marks masked" if cleaned[0] else NOT_STATED
    return {
        "report texts": removed or "no report text was read",
        "ids": "HMAC-SHA256 under the workspace's key" if policy == "keyed" else "kept as given, hashed in this folder",
        "frames": frames,
        "headers": "none: every file is written from its pixels",
        "date of removal": "not recorded",
    }


def labelling(ws: Any, real: "pd.DataFrame", made: "pd.DataFrame | None") -> dict[str, str]:
    """Vocabulary, prompts and masks by content, so that two cards can be compared."""
    with ws.connect(read_only=True) as con:
        cursor = con.cursor()
        cursor.register("shown", real[["image_id"]].astype("string"))
        masks = cursor.execute(
            """SELECT coalesce(origin, ?) FROM shown JOIN regions USING (image_id) WHERE kind = 'nodule'""",
            [NOT_STATED],
        ).fetchall()
    parts = [real[["image_id", "fg", "bg"]].values.tolist()]
    if made is not None and len(made):
        parts.append(made[["file", "fg", "bg"]].values.tolist())
    return {
        "vocabulary": f"{Path(ws.settings['domain']).stem}, SHA-256 {_digest(ws.kb.model_dump_json())}",
        "prompts": f"{sum(map(len, parts)):,}, SHA-256 {_digest(json.dumps(parts, ensure_ascii=False))}",
        "nodule masks": _counts((origin for (origin,) in masks), small=0),
        "partitions": "disjoint by patient, by file, by pixels and by near-duplicate; see what was checked",
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def gated(run: str | os.PathLike[str] | None) -> str:
    """What the copy check means for the accepted images of a run: passed, or its scores were recorded only."""
    path = Path(run or "") / "gates.json"
    if run is None or not path.is_file():
        return "not recorded"
    return "recorded only" if read_json(path).get("keep_all") else "passed"


def copies(run: Path, rejected: Mapping[str, int]) -> list[list[str]]:
    """Layers of the copy check: threshold and images dropped, or that a layer was not run."""
    used = read_json(run / "gates.json") if (run / "gates.json").is_file() else {}
    out = []
    for layer, reasons, names in LAYERS:
        limit = next((used[n] for n in names if used.get(n) is not None), None)
        dropped = sum(n for reason, n in rejected.items() if reason.startswith(reasons)) if reasons else 0
        ran = bool(used) and (limit is not None or not names)
        out.append([layer, "equal" if ran and not names else _number(limit), str(dropped) if ran else NOT_MEASURED])
    if used.get("keep_all"):
        out.append(["all", "recorded only", "0: the run rejected nothing"])
    return out


def quality(run: Path) -> list[list[str]]:
    """What `tigergen evaluate` measured, each with its extractor, N and interval or floor; empty where it was not."""
    if not (run / "evaluation.json").is_file():
        return []
    found = read_json(run / "evaluation.json")
    by = str(found.get("extractor", NOT_STATED))
    rows = []
    for r in found.get("distances", []):
        for name in ("kernel", "frechet", "density", "coverage") if r.get("generated") else ():
            floor = f"{_number(r['floor'][name])} (real against real)"
            what = f"{name}, {r['label']}"
            rows.append([what, by, str(r["n"]), _number(r["generated"][name]), floor])
    for r in found.get("telling_apart", []):
        if "generated" in r:
            floor = f"{_number(r['floor'])} (real against real)"
            what = f"AUROC of generated against real, {r['label']}"
            rows.append([what, f"logistic on {by}", str(r["n"]), _number(r["generated"]), floor])
    for r in found.get("attributes", {}).get("rows", []):
        interval = " to ".join(_number(v) for v in r["generated_ci"])
        what = f"agreement of {r['attribute']} (real {_number(r['real'])})"
        rows.append([what, "judge of attributes", str(r["n_generated"]), _number(r["generated"]), interval])
    if "edges" in found:
        value = _number(found["edges"]["mean"])
        rows.append(["correlation of edges asked and found", "Sobel", str(found["edges"]["n"]), value, "–"])
    if "mask" in found:
        floor = f"{_number(found['mask']['real'])} (real)"
        value = _number(found["mask"]["generated"])
        rows.append(["Dice of nodule asked and found", "segmenter", str(found["mask"]["n"]), value, floor])
    return rows


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:.3g}" if isinstance(value, (int, float)) else str(value)
