"""The leak query (contract 7 of the design): what would let a test image, or its patient, shape the training set."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kb.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

# The real images behind the generators, as recorded when they were trained: today's split may be another one.
SEEN = """
        seen AS (SELECT model_id, unnest(from_json(try_cast(trained_on AS JSON), '["VARCHAR"]')) AS image_id FROM models
            WHERE model_id IN (SELECT model_id FROM m WHERE synthetic))"""
# Each query gives pairs (training side, evaluation side). `m` is the manifest of the export, one row a file.
QUERIES: dict[str, str] = {
    "a patient is in two splits": """
        SELECT DISTINCT a.image_id, b.image_id FROM m a JOIN m b USING (patient_id)
        WHERE a.split < b.split AND NOT a.synthetic AND NOT b.synthetic ORDER BY ALL""",
    "the same image is in two splits": """
        SELECT DISTINCT a.image_id, b.image_id FROM m a JOIN m b USING (sha256)
        WHERE a.split < b.split ORDER BY ALL""",
    "a generated image is outside train": """
        SELECT DISTINCT file, split FROM m WHERE synthetic AND split <> 'train' ORDER BY ALL""",
    "a donor is not in train": """
        SELECT DISTINCT m.file, d.donor FROM m, (VALUES (m.donor_image_id), (m.mask_image_id)) d(donor)
        LEFT JOIN splits s ON s.image_id = d.donor AND s.name = 'default'
        WHERE m.synthetic AND (s.split IS NULL OR s.split <> 'train') ORDER BY ALL""",
    "the patient of a donor is outside train": """
        SELECT DISTINCT m.file, e.image_id FROM m JOIN images i ON i.image_id IN (m.donor_image_id, m.mask_image_id)
        JOIN m e ON e.patient_id = i.patient_id
        WHERE m.synthetic AND NOT e.synthetic AND e.split <> 'train' ORDER BY ALL""",
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
        WITH {SEEN}
        SELECT DISTINCT seen.model_id, e.image_id FROM seen JOIN images i USING (image_id)
        JOIN m e ON e.patient_id = i.patient_id
        WHERE NOT e.synthetic AND e.split <> 'train' ORDER BY ALL""",
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

    `manifest`: a table or a Parquet file with the columns `COLUMNS`; `patient_id` is the workspace's own id.

    Raises:
        LeakError: with the kind of leak and the pairs.
        UserError: a column is missing.
    """
    import pandas as pd

    table = manifest if isinstance(manifest, pd.DataFrame) else pd.read_parquet(Path(manifest))
    missing = [c for c in COLUMNS if c not in table.columns]
    if missing:
        raise UserError(f"the manifest has no column '{missing[0]}', so leaks cannot be looked for; export it again.")
    text = {c: "string" for c in COLUMNS if c != "synthetic"}
    with ws.connect(read_only=True) as con:
        cursor = con.cursor()
        cursor.register("m", table[list(COLUMNS)].astype(text | {"synthetic": bool}))
        for kind, query in QUERIES.items():
            pairs = cursor.execute(query).fetchall()
            if pairs:
                raise LeakError(kind, pairs)
    return [f"not so: {kind}" for kind in QUERIES]
