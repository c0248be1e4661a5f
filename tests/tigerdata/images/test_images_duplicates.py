"""Duplicates: planted copies are found and grouped, other frames are not, and the search agrees with brute force."""

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tigerdata.conftest import draw
from tigerdata.images import duplicates
from tigerdata.images.detail import detail_correlation
from tigerdata.images.ingest import ingest_images
from tigerdata.splits import split
from tigerdata.workspace import Workspace

FRAMES = [draw(seed, (120, 150))[0] for seed in range(30)]


def compressed(image: np.ndarray) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_GRAYSCALE)


def marked(image: np.ndarray) -> np.ndarray:
    out = image.copy()
    for x, y in ((40, 50), (100, 50), (70, 30), (70, 80)):
        cv2.drawMarker(out, (x, y), 255, cv2.MARKER_CROSS, 5, 1)
    return out


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "jpeg": compressed,
    "halved": lambda i: cv2.resize(i, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "brighter": lambda i: np.clip(i * 1.15 + 10, 0, 255).astype(np.uint8),
    "mirrored": lambda i: np.ascontiguousarray(i[:, ::-1]),
    "mirrored jpeg": lambda i: compressed(np.ascontiguousarray(i[:, ::-1])),
    "cut": lambda i: i[2:-2, 3:-3],
    "marked": marked,
}


def search(frames: list[np.ndarray], files: np.ndarray | None = None) -> set[tuple[int, int]]:
    hashes = np.array([duplicates.perceptual_hash(f) for f in frames], np.uint64)
    part = duplicates.band_pass(np.stack([duplicates.thumbnail(f) for f in frames]))
    prints = duplicates.unit(part.reshape(len(part), -1))
    mirrored = duplicates.unit(part[:, :, ::-1].reshape(len(part), -1))
    names = np.arange(len(frames)) if files is None else files
    first, second, _, _ = duplicates.near_pairs(hashes, prints, mirrored, names)
    return set(zip(first.tolist(), second.tolist(), strict=True))


@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_found_and_nothing_else(kind: str) -> None:
    found = search(FRAMES + [COPIES[kind](f) for f in FRAMES])
    planted = {(k, k + len(FRAMES)) for k in range(len(FRAMES))}
    assert len(found & planted) >= 0.95 * len(planted) and not found - planted


@pytest.mark.parametrize("kind", COPIES)
def test_copies_share_their_detail(kind: str) -> None:
    for frame in FRAMES[:10]:
        copy = COPIES[kind](frame)
        turned = np.ascontiguousarray(copy[:, ::-1]) if "mirrored" in kind else copy
        assert detail_correlation(frame, turned) > 0.8
        assert detail_correlation(frame, turned, enough=0.5) >= 0.5


def cyst(seed: int) -> np.ndarray:
    """A large black cyst in tissue that darkens with depth, alike in every patient, in speckle of the patient's own."""
    frame = np.add.outer(np.linspace(180, 60, 150), np.linspace(0, 40, 150))
    frame *= 1 + 0.3 * cv2.GaussianBlur(np.random.default_rng(seed).normal(0, 2, (150, 150)), (0, 0), 1)
    cv2.ellipse(frame, (65, 83 + seed % 3), (50, 35), 0, 0, 360, 0, -1)
    return np.clip(frame, 0, 255).astype(np.uint8)


def test_patients_with_the_same_layout_are_no_copies(ws: Workspace, tmp_path: Path) -> None:
    root = tmp_path / "cysts"
    root.mkdir()
    frames = [cyst(seed) for seed in range(6)]
    assert len(search(frames)) == 15  # each pair passes as thumbnails
    for k, frame in enumerate(frames):
        cv2.imwrite(str(root / f"{k}.png"), frame)
    cv2.imwrite(str(root / "6.png"), marked(frames[5]))
    (root / "images.csv").write_text(
        "file,patient_id\n" + "".join(f"{k}.png,P{k}\n" for k in range(7)), encoding="utf-8"
    )
    result = ingest_images(ws, root)
    assert (result["duplicate_images"], result["duplicate_groups"]) == (2, 1)


def test_constant_frames_have_no_detail() -> None:
    flat = np.full((60, 60), 9, np.uint8)
    assert detail_correlation(flat, flat) == 0 and detail_correlation(flat, FRAMES[0]) == pytest.approx(0, abs=0.05)


def test_the_hash_of_a_mirror_image_differs_by_the_mirror_bits_alone() -> None:
    for frame in FRAMES:
        turned = duplicates.perceptual_hash(np.ascontiguousarray(frame[:, ::-1]))
        assert (
            duplicates.perceptual_hash(frame) ^ turned == int(duplicates.MIRROR)
            or bin(duplicates.perceptual_hash(frame) ^ turned ^ int(duplicates.MIRROR)).count("1") <= 1
        )  # a coefficient of nearly 0


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(0, 10_000), st.integers(1, 7))
def test_blocks_find_what_brute_force_finds(n: int, seed: int, block: int) -> None:
    """Random hashes and vectors, near on purpose; an independent double loop over bits and products."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, n, dtype=np.uint64, endpoint=False)
    hashes[n // 2 :] = hashes[: n - n // 2] ^ np.uint64(int(rng.integers(0, 2**20)))
    base = rng.normal(size=(n, 9)).astype(np.float32)
    base[n // 2 :] = base[: n - n // 2] + rng.normal(0, 0.3, (n - n // 2, 9)).astype(np.float32)
    prints = duplicates.unit(base)
    mirrored = duplicates.unit(base[:, ::-1].copy())
    files = rng.integers(0, n + 1, n)
    expected = set()
    for i in range(n):
        for j in range(i + 1, n):
            for turn, own in ((0, prints), (int(duplicates.MIRROR), mirrored)):
                bits = bin(int(hashes[i]) ^ int(hashes[j]) ^ turn).count("1")
                if files[i] != files[j] and bits <= duplicates.HAMMING and own[i] @ prints[j] >= duplicates.CORRELATION:
                    expected.add((i, j, bool(turn)))
    original, duplicates.BLOCK = duplicates.BLOCK, block
    try:
        first, second, _, turned = duplicates.near_pairs(hashes, prints, mirrored, files)
    finally:
        duplicates.BLOCK = original
    assert set(zip(first.tolist(), second.tolist(), turned.tolist(), strict=True)) == expected


@pytest.fixture
def copied(ws: Workspace, tmp_path: Path) -> Path:
    """Twenty patients, and under twenty other names their frames as BMP (10) or as JPEG (10), some mirrored."""
    root = tmp_path / "copies"
    root.mkdir()
    lines = ["file,patient_id,label"]
    for k, frame in enumerate(FRAMES[:20]):
        cv2.imwrite(str(root / f"a{k}.png"), frame)
        if k < 10:
            cv2.imwrite(str(root / f"b{k}.bmp"), frame)
        else:
            cv2.imwrite(str(root / f"b{k}.jpg"), frame[:, ::-1] if k > 14 else frame, [cv2.IMWRITE_JPEG_QUALITY, 60])
        lines += [f"a{k}.png,P{k:02d},PTC", f"b{k}.{'bmp' if k < 10 else 'jpg'},Q{k:02d},PTC"]
    for k, frame in enumerate(FRAMES[20:]):
        cv2.imwrite(str(root / f"c{k}.png"), frame)
        lines.append(f"c{k}.png,R{k},PTC")
    (root / "images.csv").write_text("\n".join(lines), encoding="utf-8")
    return root


def test_groups_are_listed_and_no_split_tears_them(ws: Workspace, copied: Path) -> None:
    result = ingest_images(ws, copied)
    assert (result["duplicate_images"], result["duplicate_groups"]) == (40, 20)
    assert result["duplicate_groups_across_patients"] == 20
    with ws.connect(read_only=True) as con:
        rows = con.execute(
            """SELECT i.patient_id, n.patient_id, d.kind, d.mirrored, d.correlation,
                      d.duplicate_group = m.duplicate_group
               FROM duplicates d JOIN images i USING (image_id) JOIN images n ON n.image_id = d.nearest_id
               JOIN duplicates m ON m.image_id = d.nearest_id ORDER BY 1"""
        ).fetchall()
    for own, other, kind, mirrored, correlation, together in rows:
        k = int(own[1:])
        assert own[1:] == other[1:] and own != other and together
        assert (kind, mirrored) == ("pixels" if k < 10 else "near", k > 14)
        assert correlation == 1 if k < 10 else correlation >= duplicates.CORRELATION
    with open(result["conflict_list"], encoding="utf-8", newline="") as file:
        listed = list(csv.DictReader(file))
    assert [(r["kind"], r["patient_id"]) for r in listed] == [("images", f"P{k:02d}; Q{k:02d}") for k in range(20)]
    split(ws, val=0.3, test=0.3)
    with ws.connect(read_only=True) as con:
        part = dict(con.execute("SELECT patient_id, split FROM splits").fetchall())
    assert all(part[f"P{k:02d}"] == part[f"Q{k:02d}"] for k in range(20)) and len(set(part.values())) == 3


def test_a_group_grows_over_ingests_and_shrinks_when_a_copy_is_refused(ws: Workspace, copied: Path) -> None:
    table = (copied / "images.csv").read_text("utf-8").splitlines()
    for name, wanted in (("first.csv", "a"), ("second.csv", "b")):
        (copied / name).write_text("\n".join([table[0], *(r for r in table if r.startswith(wanted))]), encoding="utf-8")
    assert "duplicate_groups" not in ingest_images(ws, copied / "first.csv")
    assert ingest_images(ws, copied / "second.csv")["duplicate_groups"] == 20
    for k in range(20):
        next(copied.glob(f"b{k}.*")).write_bytes(b"")
    with ws.connect() as con:
        con.execute("UPDATE images SET rejected = 'X' WHERE patient_id LIKE 'Q%'")
    assert "duplicate_groups" not in ingest_images(ws, copied / "first.csv")


def test_frames_of_one_file_are_no_duplicates() -> None:
    still = [FRAMES[0], FRAMES[0], compressed(FRAMES[0]), FRAMES[1]]
    assert search(still, np.array([0, 0, 0, 1])) == set()
    assert search(still, np.array([0, 1, 0, 2])) == {(0, 1), (1, 2)}


def dump(ws: Workspace) -> dict[str, list]:
    with ws.connect(read_only=True) as con:
        names = [row[0] for row in con.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()]
        return {name: con.execute(f'FROM "{name}" ORDER BY ALL').fetchall() for name in names}


def test_the_number_of_processes_changes_nothing(tmp_path: Path, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tigerdata.images import ingest

    monkeypatch.setattr(ingest, "BATCH", 4)
    (copied / "a3.png").write_bytes(b"<html>")
    with (copied / "images.csv").open("a", encoding="utf-8") as table:
        table.write("\na4.png,P04,\na5.png,P99,\n../a.png,,\ngone.png,,\n")
    found = []
    for number, workers in enumerate((1, 2, 2)):
        ws = Workspace.create(tmp_path / f"ws{number}", settings={"privacy": {"ids": "kept"}})
        if number:
            shutil.copy(tmp_path / "ws0" / "tiger.key", ws.path / "tiger.key")
        result = ingest_images(ws, copied, workers=workers)
        result = {name: value for name, value in result.items() if name not in ("rejects", "conflict_list")}
        files = {p.name: p.read_bytes() for p in (ws.path / "images").iterdir()}
        found.append((result, dump(ws), files, (ws.path / "rejects.csv").read_bytes()))
        assert not [name for name in os.listdir(ws.path) if name.startswith(".ingest")]
    assert found[0][0]["files"] == 54 == found[0][0]["taken"] + len(found[0][0]["rejected"])
    assert found[0] == found[1] == found[2]
