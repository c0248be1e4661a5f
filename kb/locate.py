"""Where the files of a domain lie: packaged with TigerData, in a folder of the user's, or overlaid in a workspace."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from kb.errors import UserError
from kb.yamlfile import Lines, read_yaml

DOMAINS = Path(__file__).parent / "domains"
PARTS = ("", "_subtypes", "_reports")
SUFFIXES = (".yaml", ".yml")
VERSIONED = re.compile(r"@[0-9a-f]{12}$")
DEEPEST = 5  # overlays of overlays; more is a circle

Stamp = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Place:
    """Files of one domain: `folder/name.yaml` and its companions, then `overlays` in order.

    `stamp` holds time and size of every file outside the package, so that a cache keyed by the place notices an edit.
    """

    folder: Path
    name: str
    overlays: tuple[Path, ...] = ()
    stamp: Stamp = ()

    def file(self, part: str = "") -> Path:
        """Path of one file of the domain; `part` is "", "_subtypes" or "_reports"."""
        return self.folder / f"{self.name}{part}.yaml"


def locate(domain: str | Path = "thyroid", folder: Path | None = None, overlays: Sequence[Path] = ()) -> Place:
    """Find the files that a domain stands for.

    `domain` is a name (looked up in `folder`, else among the packaged organs), the path of an organ's YAML file, or the
    path of an overlay, a file that begins with `extends:`. Raises UserError when an overlay cannot be read or extends
    itself; files of an organ that are missing are named when they are read.
    """
    place = _base(domain, folder)
    wanted = (*place.overlays, *(path for path in overlays if path not in place.overlays))
    if place.folder == DOMAINS and not wanted:
        return place
    files = [*wanted, *(place.file(part) for part in PARTS if place.folder != DOMAINS)]
    return Place(place.folder, place.name, wanted, tuple(_stamp(path) for path in files))


def versioned(domain: str | Path) -> str:
    """A domain as a key for caches: its name, or its path with a mark that changes when one of its files does.

    `locate`, and so everything that takes a domain, reads such a key as the domain itself.
    """
    if not is_path(domain) or VERSIONED.search(str(domain)):
        return str(domain)
    place = locate(domain)
    digest = hashlib.sha256(repr((place.folder, place.name, place.overlays, place.stamp)).encode()).hexdigest()
    return f"{Path(domain).absolute()}@{digest[:12]}"


def is_path(domain: str | Path) -> bool:
    """Whether a domain is given by a path instead of a name."""
    if isinstance(domain, Path) or "/" in domain or "\\" in domain:
        return True
    return VERSIONED.sub("", domain).endswith(SUFFIXES)


def _base(domain: str | Path, folder: Path | None, depth: int = 0) -> Place:
    if not is_path(domain):
        if folder is None and not (DOMAINS / f"{domain}.yaml").is_file():
            organs = ", ".join(sorted(p.stem for p in DOMAINS.glob("*.yaml") if "_" not in p.stem))
            raise UserError(f"there is no organ '{domain}'; packaged are {organs}, or give the path of a YAML file.")
        return Place(folder or DOMAINS, str(domain))
    path = Path(VERSIONED.sub("", str(domain))).absolute()
    if not path.is_file():
        raise UserError(
            f"there is no file {path}; name a packaged organ, an organ's YAML file or a workspace's overlay."
        )
    extends = _extends(path, _stamp(path))
    if extends is None:
        return Place(path.parent, path.stem)
    if depth == DEEPEST:
        raise UserError(f"{path.name}:1 extends itself in a circle; let it extend an organ.")
    below = _base(path.parent / extends if is_path(extends) else extends, folder, depth + 1)
    return Place(below.folder, below.name, (*below.overlays, path))


@lru_cache(maxsize=32)
def _extends(path: Path, stamp: tuple[int, int]) -> str | None:
    content = read_yaml(path, Lines())
    return str(content["extends"]) if "extends" in content else None


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size
