"""The leak query (contract 7 of the design): what would let a test image, or its patient, shape the training set."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kb.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

# What a row of a plan says of its prompt when it repeats that of a real image (`tigergen.augment.draws.REAL`). A row
# that names no source was written by hand, so nothing else is known of it either.
REAL_PROMPT = "real prompt of the class"
# The real images that a generated one is made from: edge map, nodule mask, and the image that was refined, if any.
LENT = """
        lent AS (SELECT file, unnest([donor_image_id, mask_image_id, edited_image_id]) AS image_id FROM m
            WHERE synthetic)"""
# Images with the same pixels or of one group of near-duplicates; the same file is looked at by its hash.
KIN = """
        kin AS (SELECT image_id, 'group ' || duplicate_group AS kin FROM duplicates WHERE duplicate_group IS NOT NULL
            UNION SELECT image_id, 'pixels ' || pixel_hash FROM fingerprints WHERE pixel_hash IS NOT NULL),
        alike AS (SELECT DISTINCT a.image_id, b.image_id AS other FROM kin a JOIN kin b USING (kin)
            WHERE a.image_id <> b.image_id)"""
# The real images behind the generators, as recorded when they were trained: today's split may be another one.
SEEN = """
        seen AS (SELECT model_id, unnest(from_json(try_cast(trained_on AS JSON), '["VARCHAR"]')) AS image_id FROM models
            WHERE model_id IN (SELECT model_id FROM m WHERE synthetic))"""
# Real images of the export that must shape nothing.
HELD = "held AS (SELECT * FROM m WHERE NOT synthetic AND split <> 'train')"
# The training side first; between val and test it is val, which chooses models.
APART = "(a.split = 'train' AND b.split <> 'train' OR a.split = 'val' AND b.split = 'test')"
# Each query gives pairs (training side, evaluation side). `m` is the manifest of the export, one row a file; `said` is
# what each image's prompt says, with its attributes in one order.
QUERIES: dict[str, str] = {
    "a patient is in two splits": f"""
        SELECT DISTINCT a.image_id, b.image_id FROM m a JOIN m b USING (patient_id)
        WHERE {APART} AND NOT a.synthetic AND NOT b.synthetic ORDER BY ALL""",
    "a generated image passes for a real one": """
        SELECT DISTINCT m.image_id, s.path FROM m JOIN samples s USING (sha256) WHERE NOT m.synthetic ORDER BY ALL""",
    "the same image is in two splits": f"""
        SELECT DISTINCT a.image_id, b.image_id FROM m a JOIN m b USING (sha256)
        WHERE {APART} ORDER BY ALL""",
    "copies of an image are in two splits": f"""
        WITH {KIN}
        SELECT DISTINCT a.image_id, b.image_id FROM m a JOIN alike USING (image_id)
        JOIN m b ON b.image_id = alike.other WHERE {APART} ORDER BY ALL""",
    "a generated image is outside train": """
        SELECT DISTINCT file, split FROM m WHERE synthetic AND split <> 'train' ORDER BY ALL""",
    "a donor is not in train": """
        SELECT DISTINCT m.file, d.donor FROM m, (VALUES (m.donor_image_id), (m.mask_image_id)) d(donor)
        LEFT JOIN splits s ON s.image_id = d.donor AND s.name = 'default'
        WHERE m.synthetic AND (s.split IS NULL OR s.split <> 'train') ORDER BY ALL""",
    "an edited image is not in train": """
        SELECT DISTINCT m.file, m.edited_image_id FROM m
        LEFT JOIN splits s ON s.image_id = m.edited_image_id AND s.name = 'default'
        WHERE m.synthetic AND m.edited_image_id IS NOT NULL AND (s.split IS NULL OR s.split <> 'train')
        ORDER BY ALL""",
    "the patient of a donor or of an edited image is outside train": f"""
        WITH {LENT}, {HELD}
        SELECT DISTINCT lent.file, e.image_id FROM lent JOIN images i USING (image_id)
        JOIN held e ON e.patient_id = i.patient_id ORDER BY ALL""",
    "a copy of a donor or of an edited image is outside train": f"""
        WITH {LENT}, {KIN}, {HELD}
        SELECT DISTINCT lent.file, e.image_id FROM lent JOIN alike USING (image_id)
        JOIN held e ON e.image_id = alike.other ORDER BY ALL""",
    "a training image has its prompt from the report of a patient outside train": f"""
        WITH {SEEN}, {HELD},
        told AS (SELECT p.image_id, n.report_id, coalesce(nullif(n.patient_id, ''), r.patient_id) AS patient_id
            FROM prompts p JOIN nodules n USING (nodule_id) LEFT JOIN reports r ON r.report_id = n.report_id),
        taught AS (SELECT told.* FROM told WHERE image_id IN (SELECT image_id FROM seen UNION ALL
            SELECT image_id FROM m WHERE NOT synthetic AND split = 'train'))
        SELECT taught.image_id, e.image_id FROM taught JOIN held e USING (patient_id) UNION
        SELECT taught.image_id, e.image_id FROM taught JOIN told USING (report_id)
        JOIN held e ON e.image_id = told.image_id ORDER BY ALL""",
    "a generated image has the prompt of an image outside train": f"""
        WITH {HELD}
        SELECT DISTINCT m.file, e.image_id FROM m JOIN said o ON o.label = m.label AND o.attributes = m.attributes
        JOIN held e ON e.image_id = o.image_id
        WHERE m.synthetic AND m.attributes <> '{{}}' AND coalesce(m.prompt_source, '{REAL_PROMPT}') = '{REAL_PROMPT}'
        AND NOT EXISTS (FROM said t JOIN splits s ON s.image_id = t.image_id WHERE s.name = 'default'
            AND s.split = 'train' AND t.label = m.label AND t.attributes = m.attributes) ORDER BY ALL""",
    "the generator's training set is not known": """
        SELECT DISTINCT m.model_id, 'models' FROM m LEFT JOIN models g USING (model_id)
        WHERE m.synthetic AND NOT coalesce(json_array_length(try_cast(g.trained_on AS JSON)) > 0, false)
        ORDER BY ALL""",
    "the generator has seen an image outside train": f"""
        WITH {SEEN}
        SELECT DISTINCT seen.model_id, seen.image_id FROM seen
        LEFT JOIN splits s ON s.image_id = seen.image_id AND s.name = 'default'
        WHERE s.split IS NULL OR s.split <> 'train' ORDER BY ALL""",
    "the generator has seen a patient outside train": f"""
        WITH {SEEN}, {HELD}
        SELECT DISTINCT seen.model_id, e.image_id FROM seen JOIN images i USING (image_id)
        JOIN held e ON e.patient_id = i.patient_id ORDER BY ALL""",
    "the generator has seen a copy of an image outside train": f"""
        WITH {SEEN}, {KIN}, {HELD}
        SELECT DISTINCT seen.model_id, e.image_id FROM seen JOIN alike USING (image_id)
        JOIN held e ON e.image_id = alike.other ORDER BY ALL""",
}
COLUMNS = (
    "file",
    "split",
    "synthetic",
    "image_id",
    "patient_id",
    "sha256",
    "donor_image_id",
    "mask_image_id",
    "model_id",
)
# Where a run has them: the real image that was refined, and what a generated image's prompt says and where it is from.
OPTIONAL = ("edited_image_id", "label", "attributes", "prompt_source")


class LeakError(UserError):
    """A leak; `kind` says which and `pairs` names what touches what."""

    def __init__(self, kind: str, pairs: list[tuple[Any, Any]]) -> None:
        shown = "; ".join(f"{a} – {b}" for a, b in pairs[:5])
        more = f" and {len(pairs) - 5} more" if len(pairs) > 5 else ""
        super().__init__(
            f"Leak: {kind} ({shown}{more}); nothing was written: mend the split or the plan, or train the generator "
            "again on the new split."
        )
        self.kind, self.pairs = kind, pairs


def check(ws: Any, manifest: "pd.DataFrame | str | os.PathLike[str]") -> list[str]:
    """Refuse a manifest that leaks; returns the checks that passed, as sentences for the data card.

    `manifest`: a table or a Parquet file with the columns `COLUMNS`; `patient_id` is the workspace's own id. It
    may have those of `OPTIONAL`: `edited_image_id` (a real image that was refined), `label`, `attributes` (JSON) and
    `prompt_source` (`REAL_PROMPT`, or another source of the plan's row). A combination that a profile drew may meet a
    test image's by chance, so prompts are compared where they repeat a real one or nobody says where they are from.

    Raises:
        LeakError: with the kind of leak and the pairs.
        UserError: a column is missing.
    """
    import pandas as pd

    table = manifest if isinstance(manifest, pd.DataFrame) else pd.read_parquet(Path(manifest))
    missing = [c for c in COLUMNS if c not in table.columns]
    if missing:
        raise UserError(f"the manifest has no column '{missing[0]}', so leaks cannot be looked for; export it again.")
    rows = table.reindex(columns=[*COLUMNS, *OPTIONAL])
    # An image without a patient, or a row without a source, is no relative of another such one.
    rows = rows.where(rows.notna() & (rows != ""), None)
    rows["attributes"] = _in_order(rows["attributes"])
    text = {c: "string" for c in rows if c != "synthetic"}
    with ws.connect(read_only=True) as con:
        cursor = con.cursor()
        said = cursor.execute("SELECT image_id, label, CAST(attributes AS VARCHAR) AS attributes FROM prompts").df()
        cursor.register("said", said.assign(attributes=_in_order(said["attributes"])).astype("string"))
        cursor.register("m", rows.astype(text | {"synthetic": bool}))
        for kind, query in QUERIES.items():
            pairs = cursor.execute(query).fetchall()
            if pairs:
                raise LeakError(kind, pairs)
    return [f"not so: {kind}" for kind in QUERIES]


def _in_order(texts: Iterable[Any]) -> list[str | None]:
    """Attributes as JSON in which equal ones are equal texts; what is not there stays None."""
    out: list[str | None] = []
    for text in texts:
        if not isinstance(text, str):
            out.append(None)
            continue
        said = {name: sorted(values) for name, values in json.loads(text).items() if values}
        out.append(json.dumps(said, sort_keys=True, ensure_ascii=False))
    return out
