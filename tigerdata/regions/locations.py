"""Where the nodules of a corpus lie in their glands, from the masks; and the pole words that follow from that.

A word that no text said is marked: its rule is `DERIVED`, and it is only written for a nodule whose pole nobody stated.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from tigerdata.regions import masks, thirds

if TYPE_CHECKING:
    from tigerdata.workspace import Workspace

DERIVED = "derived:nodule-and-gland-mask"
# Two outlines that differ by less than this share of the gland's depth meet: nobody draws more exactly.
EDGE = 0.03
COLUMNS = ("class", "plane", "nodules", "first_third", "second_third", "third_third", "down", "meets_upper_edge")


def pole_of(nodule: Any, gland: Any) -> str | None:
    """Return upper, middle or lower for masks [H, W] of a longitudinal frame; None where the frame cuts the gland.

    A third of what the frame happens to show of a longer lobe is no third of the lobe: on simulated frames, which all
    cut it, such words would call most upper and lower poles middle.
    """
    box = thirds.extent(gland)
    if box.left == 0 or box.left + box.width == gland.shape[1]:
        return None
    across = box.across(thirds.centroid(nodule)[1])
    return ("upper", "middle", "lower")[int(np.clip(3 * across, 0, 2))]


def locate(ws: Workspace) -> dict[str, Any]:
    """Measure every image that has both masks, write derived pole words, and return statistics.

    `table` holds one row a class and plane: the number of nodules, how many have their centroid in the first, second
    and third part across the gland (from the image's left), the mean depth in the gland (0 its upper end, 1 its lower
    one) and how many meet the gland's upper edge. Poles are derived in longitudinal frames only, written to the nodule
    as findings with the rule `DERIVED`, and replaced by the next call; `derived`, `agrees_with_text`,
    `contradicts_text`, `gland_cut` and `contradict_each_other` count them. Prompts take them up when they are built
    again.
    """
    from kb import store
    from tigerdata.prompt_links import read_links
    from tigerdata.regions.placement import above_edge

    with ws.connect() as con, store.transaction(con):
        con.execute("DELETE FROM findings WHERE rule = ?", [DERIVED])
        con.execute("DELETE FROM nodules WHERE source = ?", [DERIVED])
    counts: Counter[str] = Counter()
    with ws.connect(read_only=True) as con:
        links = read_links(ws.kb, con, Counter())
        rows = con.execute(
            """SELECT i.image_id, i.patient_id, i.exam_id, i.plane, i.label, n.path, g.path, p.label, p.attributes
               FROM images i JOIN regions n ON n.image_id = i.image_id AND n.kind = 'nodule'
               JOIN regions g ON g.image_id = i.image_id AND g.kind = 'gland'
               LEFT JOIN prompts p ON p.image_id = i.image_id WHERE i.rejected IS NULL ORDER BY i.image_id"""
        ).fetchall()
    groups: dict[tuple[str, str], list[tuple[int, float, bool]]] = defaultdict(list)
    words: dict[str, set[str]] = defaultdict(set)
    new: dict[str, tuple[str, str | None, str | None]] = {}
    for image_id, patient, exam, plane, label, nodule_path, gland_path, own_label, attributes in rows:
        nodule_mask, gland = masks.load(ws, nodule_path), masks.load(ws, gland_path)
        if nodule_mask.shape != gland.shape or not nodule_mask.any() or not gland.any():
            counts["unusable_masks"] += 1
            continue
        plane = plane or next(iter(json.loads(attributes or "{}").get("sonogram_direction", [])), None)
        box, (y, x) = thirds.extent(gland), thirds.centroid(nodule_mask)
        third = int(np.clip(3 * box.across(x), 0, 2))
        meets = bool((above_edge(gland)[nodule_mask] >= -max(1, round(EDGE * box.height))).any())
        groups[own_label or label or "(no label)", plane or "(not known)"].append((third, box.down(y), meets))
        if plane != "longitudinal":
            continue
        pole = pole_of(nodule_mask, gland)
        if pole is None:
            counts["gland_cut"] += 1
            continue
        nodule = links.nodule(image_id, patient, exam)
        stated = set(nodule.attributes.get("nodule_location", ())) & set(thirds.POLES) if nodule else set()
        if stated:
            window = [thirds.POLES[word] for word in stated]
            across = box.across(x)
            counts["agrees_with_text" if any(a <= across <= b for a, b in window) else "contradicts_text"] += 1
            continue
        own = links.by_image.get(image_id, [])
        known = (nodule.nodule_id if nodule else None) or (own[0].nodule_id if own else None)
        nodule_id = known or f"{image_id}.derived"
        words[nodule_id].add(pole)
        if known is None:
            new[nodule_id] = (image_id, patient, exam)
    _write(ws, words, new, counts)
    table = [_row(label, plane, found) for (label, plane), found in sorted(groups.items())]
    return {"images": len(rows), **dict(sorted(counts.items())), "table": table}


def _write(
    ws: Workspace, words: dict[str, set[str]], new: dict[str, tuple[str, str | None, str | None]], counts: Counter[str]
) -> None:
    """Write one finding a nodule; `new` are images (image, patient, examination) whose nodule has no row yet."""
    import pandas as pd

    from kb import store

    nodules, findings = [], []
    for nodule_id, found in sorted(words.items()):
        if len(found) > 1:
            counts["contradict_each_other"] += 1
            continue
        if nodule_id in new:
            nodules.append((nodule_id, *new[nodule_id], 1, False, DERIVED))
        word = found.pop()
        findings.append((f"{nodule_id}.derived", nodule_id, "nodule_location", word, "positive", DERIVED))
    counts["derived"] = len(findings)
    with ws.connect() as con, store.transaction(con):
        columns = ["nodule_id", "image_id", "patient_id", "exam_id", "ordinal", "multiple", "source"]
        store.insert(con, "nodules", pd.DataFrame(nodules, columns=columns))
        columns = ["finding_id", "nodule_id", "attribute", "value", "certainty", "rule"]
        store.insert(con, "findings", pd.DataFrame(findings, columns=columns))


def _row(label: str, plane: str, found: list[tuple[int, float, bool]]) -> dict[str, Any]:
    thirds_ = Counter(third for third, _, _ in found)
    values = (
        label, plane, len(found), thirds_[0], thirds_[1], thirds_[2],
        round(float(np.mean([down for _, down, _ in found])), 3), sum(meets for _, _, meets in found),
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))
