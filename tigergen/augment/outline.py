"""A plan in short: what a person reads on the terminal before anything is sampled, and the same for a machine."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from tigergen.augment.coverage import OFTEN, factor
from tigergen.augment.planfile import total

COLUMNS = ("class", "real", "generated", "combinations", "one_way", "two_way", f"on_{OFTEN}_images", "source")


def outline(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of a plan: images, combinations, classes, impossible (pairs by reason), donors, estimate, warnings."""
    rows = Counter(row["label"] for row in plan["rows"])
    classes = {}
    for label, count in plan["generated"].items():
        found = plan["coverage"][label]
        two_way = {name: value for name, value in found["two_way"].items() if name not in ("filled", "left")}
        classes[label] = {
            "real": plan["real"][label],
            "generated": count,
            "combinations": rows[label],
            "one_way": found["one_way"],
            "two_way": {**two_way, "factor": factor(two_way)},
        }
    return {
        "images": total(plan),
        "combinations": len(plan["rows"]),
        "classes": classes,
        "impossible": {row["reason"]: len(row["pairs"]) for row in plan["impossible"]},
        "donors": plan["donor_planes"],
        "estimate": plan.get("estimate"),
        "warnings": plan["warnings"],
    }


def table(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a class with the columns of `COLUMNS`; coverage as before → after of possible.

    `on_5_images` counts the pairs that at least so many images show.
    """
    sources: dict[str, Counter[str]] = {}
    for row in plan["rows"]:
        kind = str(row.get("source", "")).partition(" [")[0].partition(";")[0]
        sources.setdefault(row["label"], Counter())[kind] += row["count"]
    out = []
    for label, short in outline(plan)["classes"].items():
        one, two = short["one_way"], short["two_way"]
        times = f" ({two['factor']:.2f} x)" if two["factor"] and two["factor"] > 1 else ""
        out.append(
            {
                "class": label,
                "real": short["real"],
                "generated": short["generated"],
                "combinations": short["combinations"],
                "one_way": f"{one['before']} → {one['after']} of {one['possible']}",
                "two_way": f"{two['before']} → {two['after']} of {two['possible']}{times}",
                f"on_{OFTEN}_images": f"{two['often']['before']} → {two['often']['after']}",
                "source": "; ".join(f"{kind} {n}" for kind, n in sources.get(label, Counter()).most_common()),
            }
        )
    return out


def lines(plan: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What stands under the table: name and text."""
    for label, found in plan["coverage"].items():
        two = found["two_way"]
        if two.get("allowed", two["possible"]) < two["possible"] and two["after"] > two["before"]:
            yield (
                f"pairs of {label}",
                f"{two['after'] - two['before']} are filled; its source allows {two['allowed']} of {two['possible']}, "
                f"of which {two['allowed'] - two['after']} stay empty",
            )
    pairs = sum(len(row["pairs"]) for row in plan["impossible"])
    example = next((row for row in plan["impossible"]), None)
    if example is not None:
        yield (
            "impossible",
            f"{pairs} pairs, listed with the reason; for instance {example['pairs'][0]}: {example['reason']}",
        )
    refused = sum(sum(reasons.values()) for reasons in plan["refused"].values())
    if refused:
        yield "refused", f"{refused} draws contradicted themselves and were made again, listed with the reason"
    planes = plan["donor_planes"].items()
    yield "donors", ", ".join(f"{plane} {n['used']} of {n['pool']}" for plane, n in planes)
    yield from _costs(plan.get("estimate"))
    for warning in plan["warnings"]:
        yield "warning", warning


def _costs(found: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    if found is None:
        return
    if found["hours"] is None:
        yield "time and disk", found["time_rule"]
        return
    yield (
        "time",
        f"{duration(found['hours'] * 3600)}, {found['seconds_per_image']:.3f} s an image; {found['time_rule']}",
    )
    yield "disk", f"{size(found['disk_bytes'])}, {size(found['bytes_per_image'])} an image; {found['disk_rule']}"


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> duration(12), duration(200), duration(40000)
    ('12 s', '3 min', '11.1 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def size(count: float) -> str:
    """Bytes as a person says them.

    >>> size(900), size(4200), size(3.1e9)
    ('900 B', '4.2 kB', '3.1 GB')
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count:.0f} B"
