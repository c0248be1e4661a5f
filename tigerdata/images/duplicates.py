"""Duplicates among images: equal pixels, and frames that are the same frame saved, cut, mirrored or marked again.

Equal pixels are found by a hash of the clean frame, so that another file format hides nothing. A near-duplicate must
pass three tests: a perceptual hash within `HAMMING` of 64 bits, as it is or mirrored, which is quick enough for all
pairs of 30,000 images; a correlation of at least `CORRELATION` of band-passed thumbnails (the measure with which the
generator looks for repeats among its own images); and the same speckle (`tigerdata.images.detail`). Thumbnails alone
take patients for each other: among ten million pairs of simulated frames, 21 reached .92 to .95, large cysts in the
same place.

The first two thresholds were measured on the clean frames of the 476 DDTI files: 605 frames, 182,423 pairs of different
patient numbers and 287 of one, looked at from the top down. 91 pairs of different patient numbers correlate by .978 or
more and are 0 to 7 bits apart: the same frame, saved again under another number. The next pair of different patients
reaches .847, and .785 among the 35 pairs within 14 bits. Of one patient, .918 and .894 are freezes of one
scan a moment apart; below .85 it is another place or another nodule. Of 200 frames each, all were found that were
saved as JPEG of quality 30, halved, brightened, changed by a gamma of .7, mirrored, given noise of 12 grey levels, or
cut by 2 % all around, and 99 of 100 with four calliper marks and a line of text drawn in. A frame cut by 8 % on one
side is beyond these thresholds and mostly not found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tigerdata.images.detail import SAME_DETAIL, detail_correlation

if TYPE_CHECKING:
    import duckdb

HAMMING, CORRELATION = 14, 0.85
HASH_SIDE, PRINT_SIDE = 32, 20
BLOCK = 1024
# The cosines of odd horizontal frequency change sign in a mirror, and with them these bits of the hash.
MIRROR = np.uint64(int("01" * 32, 2))

Grey = NDArray[np.uint8]
Vectors = NDArray[np.float32]
Pairs = list[NDArray[Any]]


def pixel_hash(image: Grey) -> str:
    """SHA-256 of an array's shape and grey levels: equal for copies saved in different files or formats."""
    return hashlib.sha256(str(image.shape).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()


def thumbnail(image: Grey, side: int = PRINT_SIDE) -> Grey:
    """A frame [H, W] as [side, side]; kept of every image, since reading all frames for a search takes minutes."""
    import cv2

    return np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def band_pass(small: NDArray[Any]) -> Vectors:
    """Thumbnails [N, s, s] without fine noise (sigma 1) and without slow brightness changes (sigma 4), float32."""
    from scipy.ndimage import gaussian_filter

    levels = small.astype(np.float32)
    return gaussian_filter(levels, (0, 1, 1)) - gaussian_filter(levels, (0, 4, 4))


def unit(v: Vectors) -> Vectors:
    """Rows with mean 0 and norm 1; a constant row becomes zero, which resembles nothing."""
    v = v - v.mean(-1, keepdims=True)
    norm = np.linalg.norm(v, axis=-1, keepdims=True)
    return np.divide(v, norm, out=np.zeros_like(v), where=norm > 1e-3)


def fingerprints(images: NDArray[np.uint8]) -> NDArray[np.float16]:
    """Unit vectors [N, 400] of images [N, H, W] whose products are correlations without shift."""
    small = np.stack([thumbnail(image) for image in images])
    return unit(band_pass(small).reshape(len(small), -1)).astype(np.float16)


def perceptual_hash(image: Grey) -> int:
    """64 signs of a frame's lowest cosine frequencies, row by row; that of the mean brightness is 0.

    The sign is taken against 0 and not against the median, so that the mirrored frame has the same hash but for the
    bits of `MIRROR`.
    """
    from scipy.fft import dctn

    signs = dctn(thumbnail(image, HASH_SIDE).astype(np.float32), norm="ortho")[:8, :8] > 0
    signs[0, 0] = False
    return int.from_bytes(np.packbits(signs).tobytes(), "big")


def near_pairs(hashes: NDArray[np.uint64], prints: Vectors, mirrored: Vectors, files: NDArray[Any]) -> Pairs:
    """Pairs of near-duplicates as arrays (first, second, correlation, whether mirrored), first < second.

    `hashes` [N], `prints` and `mirrored` [N, D] unit vectors of the frames and of their mirror images, `files` [N] the
    file of each frame: frames of one file are no duplicates of each other. Time grows with N², at a billion pairs in a
    few seconds; memory with N and the number of pairs within `HAMMING`.
    """
    found: Pairs = [np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, bool)]
    parts: list[Pairs] = [found]
    for start in range(0, len(hashes), BLOCK):
        block = hashes[start : start + BLOCK, None]
        for other in range(start, len(hashes), BLOCK):
            against = hashes[None, other : other + BLOCK]
            for turned in (False, True):
                distance = np.bitwise_count(block ^ against ^ (MIRROR if turned else np.uint64(0)))
                i, j = np.nonzero(distance <= HAMMING)
                i, j = i + start, j + other
                keep = (i < j) & (files[i] != files[j])
                i, j = i[keep], j[keep]
                correlation = np.einsum("nd,nd->n", (mirrored if turned else prints)[i], prints[j])
                near = correlation >= CORRELATION
                parts.append([i[near], j[near], correlation[near], np.full(int(near.sum()), turned)])
    return [np.concatenate(columns) for columns in zip(*parts, strict=True)]


def conflicts(con: duckdb.DuckDBPyConnection) -> list[list[str]]:
    """Groups that span patients, as rows of `conflicts.csv` without their kind: a person has to say whose they are."""
    rows = con.execute(
        """SELECT string_agg(DISTINCT patient_id, '; ' ORDER BY patient_id), min(correlation),
                  string_agg(DISTINCT path, '; ' ORDER BY path)
           FROM duplicates JOIN images USING (image_id) GROUP BY duplicate_group
           HAVING count(DISTINCT patient_id) > 1 ORDER BY ALL"""
    ).fetchall()
    return [[who, "", "", f"one frame under several patients (correlation {c:.3f})", files] for who, c, files in rows]


def _confirmed(pairs: Pairs, read: Callable[[int], Grey], workers: int) -> Pairs:
    """The pairs whose frames, by number from `read`, share their fine detail too, looked at in `workers` threads."""

    def alike(first: int, second: int, turned: bool) -> bool:
        other = read(second)
        laid = np.ascontiguousarray(other[:, ::-1]) if turned else other
        return detail_correlation(read(first), laid, enough=SAME_DETAIL) >= SAME_DETAIL

    # Threads, not processes: decoding and registration release the interpreter's lock, and nothing has to be started.
    with ThreadPoolExecutor(max(1, workers)) as pool:
        kept = list(pool.map(alike, pairs[0].tolist(), pairs[1].tolist(), pairs[3].tolist()))
    return [column[np.array(kept, dtype=bool)] for column in pairs]


def update(con: duckdb.DuckDBPyConnection, frame: Callable[[str], Grey], workers: int = 1) -> dict[str, int]:
    """Write the table `duplicates` anew from `fingerprints`, in the caller's transaction, and count.

    `frame` reads the clean frame of an image id; it is asked, from `workers` threads, for the few that hash and
    thumbnail take for copies. One row an image that has a duplicate: its group (the connected component, named after
    its first image), the nearest other image, and how alike they are. Returns the number of images and of groups by
    kind, and of groups that span patients: those are for a person to look at.
    """
    import pandas as pd
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    from kb import store

    rows = con.execute(
        """SELECT image_id, sha256, patient_id, pixel_hash, perceptual_hash, thumbnail
           FROM fingerprints JOIN images USING (image_id) WHERE rejected IS NULL ORDER BY image_id"""
    ).fetchall()
    con.execute("DELETE FROM duplicates")
    if len(rows) < 2:
        return {}
    ids, files, patients, pixels, hashes, thumbnails = (np.array(c, dtype=object) for c in zip(*rows, strict=True))
    codes, first, same = np.unique(pixels.astype(str), return_index=True, return_inverse=True)
    # Only one image of those with equal pixels is compared; the others have its neighbours.
    small = np.frombuffer(b"".join(thumbnails[first]), dtype=np.uint8).reshape(len(codes), PRINT_SIDE, PRINT_SIDE)
    prints = np.empty((len(codes), PRINT_SIDE**2), np.float32)
    mirrored = np.empty_like(prints)
    for start in range(0, len(codes), BLOCK):
        part = band_pass(small[start : start + BLOCK])
        prints[start : start + BLOCK] = unit(part.reshape(len(part), -1))
        mirrored[start : start + BLOCK] = unit(part[:, :, ::-1].reshape(len(part), -1))
    names = np.unique(files.astype(str), return_inverse=True)[1]
    pairs = near_pairs(hashes[first].astype(np.uint64), prints, mirrored, names[first])
    a, b, correlation, turned = _confirmed(pairs, lambda number: frame(str(ids[first[number]])), workers)
    graph = coo_array((np.ones(len(a)), (a, b)), shape=(len(codes), len(codes)))
    component = connected_components(graph, directed=False)[1][same]
    nearest: dict[int, tuple[float, int, bool]] = {}
    for i, j, c, t in zip(a.tolist(), b.tolist(), correlation.tolist(), turned.tolist(), strict=True):
        for own, other in ((i, j), (j, i)):
            if c > nearest.get(own, (-1.0,))[0]:
                nearest[own] = (c, other, t)
    members: dict[int, list[int]] = {}
    for image, group in enumerate(component.tolist()):
        members.setdefault(group, []).append(image)
    found = []
    for group in members.values():
        # Frames of one file with equal pixels are a still loop, no duplicates.
        if len(set(names[group].tolist())) < 2:
            continue
        for image in group:
            twins = [k for k in group if same[k] == same[image] and names[k] != names[image]][:1]
            score, other, turn = (1.0, twins[0], False) if twins else nearest[int(same[image])]
            near_id = ids[other] if twins else ids[first[other]]
            kind = "pixels" if twins else "near"
            found.append((ids[image], ids[group[0]], near_id, kind, round(min(1.0, score), 4), turn))
    columns = ["image_id", "duplicate_group", "nearest_id", "kind", "correlation", "mirrored"]
    store.insert(con, "duplicates", pd.DataFrame(found, columns=columns))
    across = sum(len({patients[k] for k in g}) > 1 for g in members.values() if len(set(names[g].tolist())) > 1)
    counts = {
        "duplicate_images": len(found),
        "duplicate_groups": len({row[1] for row in found}),
        "duplicate_groups_across_patients": across,
    }
    return {name: n for name, n in counts.items() if n}
