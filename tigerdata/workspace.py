"""The workspace: a folder with settings (`tiger.toml`), everything known (`tiger.duckdb`) and derived files.

Images stay where they lie; what is derived from them (clean frames, masks, models, runs, data sets) is below it.
"""

from __future__ import annotations

import copy
import json
import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kb
from kb.errors import UserError
from kb.files import atomic_write
from kb.locate import is_path
from tigerdata.card import STATEMENTS

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

SETTINGS_FILE = "tiger.toml"
DATABASE_FILE = "tiger.duckdb"
OVERLAY_FILE = "vocabulary.yaml"  # the user's words and roles
CORPUS_FILE = "corpus_roles.yaml"  # roles that `tigerdata terms` found the corpus to contradict
FOLDERS = ("images", "regions", "models", "runs", "datasets")

# Every setting a workspace knows, with its default. A name that is not here is refused, so that a typing error in
# tiger.toml cannot silently leave a default in force.
DEFAULT_SETTINGS: dict[str, Any] = {
    "domain": "thyroid",
    "format": 1,
    # Cleaning (tigerdata/images/clean.py): logit from which a sign is sure, and distance from the display's tint, in
    # units of chroma, from which a pixel is coloured. Lower numbers mask more.
    "images": {
        "max_megapixels": 50.0,
        "min_side": 16,
        "clean": True,
        "text_threshold": 2.5,
        "colour_threshold": 28.0,
    },
    # Of a DICOM file with several frames, every n-th; the header's elements that name an examination, first filled one.
    "dicom": {"every": 1, "exam_id": ["AccessionNumber", "StudyInstanceUID"]},
    # "keyed": ids of patients, examinations and reports are stored as keyed pseudonyms (tigerdata/identity.py). "kept":
    # as they are, for ids that are pseudonyms already.
    "privacy": {"ids": "keyed"},
    # Two cuts a word; units and reasons are in tigerdata/conditions.py.
    "quality": {"definition": [450.0, 720.0], "detail": [0.42, 0.49], "brightness": [67.0, 77.0]},
    # Below these scores an image is flagged (tigerdata/check.py). Of 605 DDTI and 96 breast frames four are under blur
    # and none under the next two; blurred by one pixel of 256, or dimmed to a quarter, all are under blur or dark.
    # `disagreement` is a factor of size or aspect, `patients` the fewest of a class that give val and test two each.
    "check": {
        "blur": 0.4,
        "dark": 0.25,
        "low_information": 0.65,
        "text": 0.75,
        "odd_size": 0.5,
        "truncated": 0.98,
        "mask": 0.5,
        "disagreement": 0.6,
        "patients": 10,
    },
    # What only the owner of the data can say. Without licence and consent no export.
    "statements": dict.fromkeys(STATEMENTS, ""),
    # DDTI has no pathology. Its usual split is TI-RADS 2-3 against 4a-5; the label of each category is a setting, and
    # an empty label leaves the category's images without one.
    "ddti": {
        "labels": {"2": "tr_low", "3": "tr_low", "4a": "tr_high", "4b": "tr_high", "4c": "tr_high", "5": "tr_high"},
    },
}


def _merge(defaults: dict[str, Any], given: dict[str, Any], where: str, prefix: str = "") -> dict[str, Any]:
    """Return `defaults` overlaid with `given`; an unknown name or a changed type is a UserError."""
    merged = copy.deepcopy(defaults)
    for name, value in given.items():
        full = f"{prefix}{name}"
        if name not in defaults:
            known = ", ".join(sorted(defaults))
            raise UserError(f"Unknown setting '{full}' in {where}; known here: {known}.")
        default = defaults[name]
        if isinstance(default, dict):
            if not isinstance(value, dict):
                raise UserError(f"Setting '{full}' in {where} must be a table.")
            merged[name] = _merge(default, value, where, f"{full}.")
        elif isinstance(default, float) and isinstance(value, (int, float)) and not isinstance(value, bool):
            merged[name] = float(value)
        elif isinstance(value, bool) != isinstance(default, bool) or not isinstance(value, type(default)):
            raise UserError(f"Setting '{full}' in {where} must be of type {type(default).__name__}.")
        else:
            merged[name] = copy.deepcopy(value)
    return merged


def _toml(settings: dict[str, Any], prefix: str = "") -> list[str]:
    """Write nested tables of strings, numbers and lists as TOML lines (a JSON string is a valid TOML basic string)."""
    plain = [f"{json.dumps(k)} = {json.dumps(v)}" for k, v in settings.items() if not isinstance(v, dict)]
    lines = [f"[{prefix}]", *plain] if prefix and plain else plain
    for name, value in settings.items():
        if isinstance(value, dict):
            lines += ["", *_toml(value, f"{prefix}.{name}" if prefix else name)]
    return lines


@dataclass(frozen=True)
class Workspace:
    """An opened workspace; make one with `Workspace.create`, `Workspace.open` or `tigerdata.open_workspace`."""

    path: Path
    settings: dict[str, Any]

    @classmethod
    def create(
        cls, path: str | os.PathLike[str], domain: str = "thyroid", settings: dict[str, Any] | None = None
    ) -> Workspace:
        """Make the folder, its `tiger.toml` and an empty database; the same call on the same workspace opens it.

        Raises UserError for an unknown setting or organ, or when a workspace with other settings is already there.
        """
        from kb import store

        folder = Path(path).resolve()
        if is_path(domain):
            domain = str(Path(domain).resolve())
        wanted = _merge(DEFAULT_SETTINGS, {**(settings or {}), "domain": domain}, "the given settings")
        kb.load(domain)  # refuses an organ without a vocabulary before anything is written
        if (folder / SETTINGS_FILE).exists():
            workspace = cls.open(folder)
            if workspace.settings != wanted:
                raise UserError(
                    f"{folder / SETTINGS_FILE} already holds other settings; edit it, or choose another folder."
                )
            return workspace
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file; a workspace is a folder: choose another name.")
        for name in FOLDERS:
            (folder / name).mkdir(parents=True, exist_ok=True)
        workspace = cls(folder, wanted)
        with workspace.connect() as con:
            store.fill_vocabulary(con, workspace.kb)
        # The settings file is what makes the folder a workspace, so it comes last.
        with atomic_write(folder / SETTINGS_FILE) as temporary:
            temporary.write_text("\n".join(_toml(wanted)) + "\n", encoding="utf-8")
        return workspace

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Workspace:
        """Open the workspace at `path`; UserError when it is none or its settings cannot be read."""
        folder = Path(path).resolve()
        file = folder / SETTINGS_FILE
        if not file.is_file():
            raise UserError(f"{folder} is no workspace (it has no {SETTINGS_FILE}); make one with `tigerdata init`.")
        try:
            given = tomllib.loads(file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{file} is not valid TOML ({error}); mend it or take it from a backup.") from error
        settings = _merge(DEFAULT_SETTINGS, given, str(file))
        if settings["format"] != DEFAULT_SETTINGS["format"]:
            raise UserError(
                f"{file} has format {settings['format']}, this program reads {DEFAULT_SETTINGS['format']}; update it."
            )
        return cls(folder, settings)

    @classmethod
    def find(cls, start: str | os.PathLike[str] = ".") -> Workspace:
        """Open the workspace at `start` or at its nearest parent that is one; UserError when there is none."""
        here = Path(start).resolve()
        for folder in (here, *here.parents):
            if (folder / SETTINGS_FILE).is_file():
                return cls.open(folder)
        raise UserError(f"No workspace at {here} or above; make one with `tigerdata init` or name it with -w.")

    @property
    def kb(self) -> kb.KnowledgeBase:
        """The knowledge base of the workspace's organ, with the roles the corpus changed and the user's overlay."""
        overlays = [self.path / name for name in (CORPUS_FILE, OVERLAY_FILE) if (self.path / name).is_file()]
        return kb.load(self.settings["domain"], overlays=overlays)

    @property
    def domain(self) -> str:
        """What `tigerdata.parse(text, domain=…)` needs to read as this workspace does: its overlay, or its organ."""
        overlay = self.path / OVERLAY_FILE
        return str(overlay) if overlay.is_file() else str(self.settings["domain"])

    @contextmanager
    def connect(self, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the database for the length of the block. One process writes at a time: open late, close early."""
        from kb import store

        con = store.connect(self.path / DATABASE_FILE, read_only=read_only)
        try:
            yield con
        finally:
            con.close()

    def frame_path(self, image_id: str) -> Path:
        """Where the clean 8-bit grey frame of an image lies."""
        return self.path / "images" / f"{image_id}.png"

    def cases(self, split: str | None = None, name: str = "default") -> pd.DataFrame:
        """Images that have a prompt and a nodule mask, one row each, sorted by `image_id`.

        Columns: image_id, sha256, patient_id, label, split, image_path, mask_path, gland_path (None when there is
        none), plane, attributes (dict of lists), fg, bg, uncertain (attributes whose findings are hedged in the
        report). Paths are absolute. Without a split of that `name`, column `split` is None; asking for one part of a
        split that does not exist is a UserError.
        """
        query = """
            SELECT i.image_id, i.sha256, i.patient_id, p.label, s.split, n.path AS nodule, g.path AS gland,
                   i.plane, p.attributes, p.fg, p.bg, u.attributes AS uncertain
            FROM prompts p JOIN images i USING (image_id)
            JOIN regions n ON n.image_id = i.image_id AND n.kind = 'nodule'
            LEFT JOIN regions g ON g.image_id = i.image_id AND g.kind = 'gland'
            LEFT JOIN splits s ON s.image_id = i.image_id AND s.name = ?
            LEFT JOIN (SELECT nodule_id, list(DISTINCT attribute ORDER BY attribute) AS attributes FROM findings
                       WHERE certainty = 'uncertain' GROUP BY nodule_id) u ON u.nodule_id = p.nodule_id
            WHERE i.rejected IS NULL ORDER BY i.image_id"""
        with self.connect(read_only=True) as con:
            if split is not None and not con.execute("SELECT 1 FROM splits WHERE name = ? LIMIT 1", [name]).fetchone():
                raise UserError(f"There is no split '{name}' in {self.path}; make it with `tigerdata split`.")
            # `object` keeps missing text as None: pandas 3 would turn it into NaN.
            rows = con.execute(query, [name]).df().astype(object)
        rows = rows.where(rows.notna(), None)
        if split is not None:
            rows = rows[rows["split"] == split].reset_index(drop=True)
        rows.insert(5, "image_path", [str(self.frame_path(i)) for i in rows["image_id"]])
        rows.insert(6, "mask_path", [str(self.path / p) for p in rows["nodule"]])
        rows.insert(7, "gland_path", [None if p is None else str(self.path / p) for p in rows["gland"]])
        rows["attributes"] = [json.loads(a) for a in rows["attributes"]]
        rows["uncertain"] = [[] if u is None else list(u) for u in rows["uncertain"]]
        return rows.drop(columns=["nodule", "gland"])


def open_workspace(path: str | os.PathLike[str]) -> Workspace:
    """Open the workspace at `path` (contract 9 of the design); UserError when it is none."""
    return Workspace.open(path)
