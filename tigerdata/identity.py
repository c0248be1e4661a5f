"""Keyed pseudonyms: ids of patients, examinations and reports as HMAC-SHA256 under a key outside the database.

The same id gives the same pseudonym in reports, pathology and images of one workspace, so that they link; without the
key file nobody can compute a pseudonym from an id. The key also draws the number of days by which the dates of a
patient are shifted: one number a patient, so that intervals stay.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kb.errors import UserError

if TYPE_CHECKING:
    import duckdb

    from tigerdata.workspace import Workspace

KEY_FILE = "tiger.key"
KEYED, KEPT = "keyed", "kept"
MAX_SHIFT_DAYS = 365
PREFIXES = {"patient": "P", "exam": "E", "report": "R"}


@dataclass(frozen=True)
class Pseudonyms:
    """Pseudonyms of one workspace. `policy` is "keyed", or "kept" where ids carry no personal data (`tiger.toml`)."""

    key: bytes
    policy: str = KEYED

    def of(self, kind: str, value: str | None) -> str | None:
        """Pseudonym of a patient's, examination's or report's id: a letter and 64 bits; nothing stays nothing.

        Spaces around an id and full-width digits do not make another id.
        """
        text = unicodedata.normalize("NFKC", value).strip() if value else ""
        if not text:
            return None
        if self.policy == KEPT:
            return text
        return f"{PREFIXES[kind]}-{self.digest(kind, text)[:16]}"

    def digest(self, *parts: str) -> str:
        """HMAC-SHA256 of the parts, hexadecimal: a fingerprint that says nothing without the key."""
        message = "\x1f".join(parts).encode("utf-8", "surrogatepass")
        return hmac.new(self.key, message, hashlib.sha256).hexdigest()

    def shift_days(self, patient: str) -> int:
        """Days, 1 to 365 into the past, by which every date of this patient (or lone report) is shifted."""
        return -(1 + int(self.digest("shift", patient)[:8], 16) % MAX_SHIFT_DAYS)


def pseudonyms(ws: Workspace) -> Pseudonyms:
    """The workspace's pseudonyms; the first call makes the key file, readable by its owner only.

    How ids were stored first stays so: the database holds the policy and a check value of the key. Raises UserError
    if the key is not the one that the stored ids were made with.
    """
    from kb import store

    with ws.connect(read_only=True) as con:
        stored = _stored(con)
    policy = stored[0] if stored else ws.settings["privacy"]["ids"]
    if policy not in (KEYED, KEPT):
        raise UserError(f'privacy.ids in tiger.toml is \'{policy}\'; write "{KEYED}" or "{KEPT}".')
    path = ws.path / KEY_FILE
    if stored and stored[1] and not path.exists():
        raise UserError(
            f"{path} is missing, and the ids of this workspace were made with it; restore it from a backup."
        )
    known = Pseudonyms(_key(path), policy)
    check = known.digest("check")
    if stored and stored[1] and stored[1] != check:
        raise UserError(f"{path} is not the key that the ids of this workspace were made with; restore that one.")
    if not stored or not stored[1]:
        import pandas as pd

        with ws.connect() as con, store.transaction(con):
            con.execute("DELETE FROM pseudonyms")
            store.insert(con, "pseudonyms", pd.DataFrame({"policy": [policy], "key_check": [check]}))
    return known


def _stored(con: duckdb.DuckDBPyConnection) -> tuple[str, str | None] | None:
    row = con.execute("SELECT policy, key_check FROM pseudonyms").fetchone()
    return (row[0], row[1]) if row else None


def _key(path: Path) -> bytes:
    """Read the key, or make it: 256 random bits, mode 600, never overwritten."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    else:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except (ValueError, UnicodeDecodeError):
        key = b""
    if len(key) < 32:
        raise UserError(
            f"{path} does not hold a key of 64 hexadecimal digits; restore it, or delete it if it is empty."
        )
    return key
