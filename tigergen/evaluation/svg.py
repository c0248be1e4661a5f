"""Small charts as inline SVG: no script, no outside file, colours from the page's own style sheet."""

from collections.abc import Sequence
from html import escape
from math import ceil, floor
from typing import Any

# What a screen reader says of a chart, in both languages.
BALANCE = "images a class before and after / 扩增前后每类图像数"
COVERAGE = "combinations shown before and after / 扩增前后出现的组合"
Text = str | tuple[str, str]
# Estimated width of a character of the small labels (12 px), and what stays free between two, in pixels.
CHARACTER, GAP = 7.0, 8.0


def _text(x: float, y: float, text: Text, kind: str = "", anchor: str = "start") -> str:
    """A line of text; a pair is English and Chinese, of which the page shows one (classes `l-en` and `l-zh`)."""
    if isinstance(text, tuple):
        return "".join(_text(x, y, t, f"{kind} l-{n}", anchor) for t, n in zip(text, ("en", "zh"), strict=True))
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def dot_plot(rows: Sequence[dict[str, Any]], label: str = "AUROC", width: int = 760) -> str:
    """One line a row: title, interval, mean and one small dot a seed.

    rows: title, test (mean), ci (low, high), per_seed, and `accent` true for the row to look at; title and note may be
    a pair, English and Chinese.
    """
    left, right, step, top = 290, 60, 46, 12
    values = [v for r in rows for v in (*r["ci"], *r["per_seed"])]
    low, high = floor(min(values) * 20 - 0.2) / 20, ceil(max(values) * 20 + 0.2) / 20
    low, high = max(0.0, low), min(1.0, max(high, low + 0.05))
    height = top + step * len(rows) + 42

    def at(v: float) -> float:
        return left + (v - low) / (high - low) * (width - left - right)

    out = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">']
    bottom = top + step * len(rows)
    for v in ticks(low, high, width - left - right):
        out.append(f'<line x1="{at(v):.1f}" y1="{top}" x2="{at(v):.1f}" y2="{bottom}" class="rule"/>')
        out.append(_text(at(v), bottom + 16, f"{v:.2f}", "muted", "middle"))
    out.append(_text(left + (width - left - right) / 2, bottom + 36, label, "muted", "middle"))
    for n, r in enumerate(rows):
        y = top + step * (n + 0.5)
        kind = "accent" if r.get("accent") else "plain"
        a, b = r["ci"]
        out.append(_text(0, y - 1, r["title"], "name"))
        out.append(_text(0, y + 14, r.get("note", ""), "muted"))
        out.append(f'<line x1="{at(a):.1f}" y1="{y}" x2="{at(b):.1f}" y2="{y}" class="bar {kind}"/>')
        out += [f'<circle cx="{at(v):.1f}" cy="{y + 9:.1f}" r="2.4" class="seed"/>' for v in r["per_seed"]]
        out.append(f'<circle cx="{at(r["test"]):.1f}" cy="{y}" r="6" class="dot {kind}"/>')
        out.append(_text(width, y + 5, f"{r['test']:.3f}", "value", "end"))
    return "".join(out) + "</svg>"


def ticks(low: float, high: float, length: float) -> list[float]:
    """Round values from `low` to `high` on an axis of `length` pixels whose labels (such as 0.55) do not touch."""
    most = length / (4 * CHARACTER + GAP)
    apart = next((a for a in (0.05, 0.1, 0.2, 0.25) if (high - low) / a <= most), 0.5)
    return [n * apart for n in range(ceil(low / apart - 1e-9), floor(high / apart + 1e-9) + 1)]


def balance(rows: Sequence[dict[str, Any]], width: int = 760) -> str:
    """Two stacked bars a class, before and after: real and generated images. rows: label, real, generated."""
    left, right, step, top = 110, 150, 54, 6
    most = max([r["real"] + r["generated"] for r in rows] + [1])
    height = top + step * len(rows) + 6
    out = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{BALANCE}">']
    for n, r in enumerate(rows):
        y = top + step * n
        scale = (width - left - right) / most
        a, b = r["real"] * scale, r["generated"] * scale
        out.append(_text(0, y + 27, r["label"], "name"))
        out.append(f'<rect x="{left}" y="{y + 4}" width="{max(a, 1.5):.1f}" height="14" class="real"/>')
        out.append(_text(left + max(a, 1.5) + 8, y + 15, f"{r['real']:,}", "muted"))
        out.append(f'<rect x="{left}" y="{y + 24}" width="{max(a, 1.5):.1f}" height="14" class="real"/>')
        out.append(f'<rect x="{left + max(a, 1.5):.1f}" y="{y + 24}" width="{b:.1f}" height="14" class="made"/>')
        out.append(_text(left + max(a, 1.5) + b + 8, y + 35, f"{r['real']:,} + {r['generated']:,}", "muted"))
    return "".join(out) + "</svg>"


def coverage(rows: Sequence[dict[str, Any]], width: int = 760) -> str:
    """One bar a class out of all possible pairs: shown by real images, by generated ones alone, by none.

    rows: label, before, after, possible.
    """
    left, right, step, top = 110, 190, 34, 6
    height, length = top + step * len(rows) + 6, width - left - right
    out = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{COVERAGE}">']
    for n, r in enumerate(rows):
        y = top + step * n
        a, b = (r[name] / max(r["possible"], 1) * length for name in ("before", "after"))
        out.append(_text(0, y + 19, r["label"], "name"))
        out.append(f'<rect x="{left}" y="{y + 6}" width="{length}" height="16" class="rail"/>')
        out.append(f'<rect x="{left}" y="{y + 6}" width="{b:.1f}" height="16" class="made"/>')
        out.append(f'<rect x="{left}" y="{y + 6}" width="{a:.1f}" height="16" class="real"/>')
        share = f"{r['before']:,} → {r['after']:,} / {r['possible']:,}"
        out.append(_text(left + length + 10, y + 19, share, "muted"))
    return "".join(out) + "</svg>"


def meter(value: float, most: float = 1.0, width: int = 120) -> str:
    """A thin bar of a share, for a table's cell."""
    share = min(1.0, max(0.0, value / most))
    return (
        f'<svg viewBox="0 0 {width} 8" class="meter" aria-hidden="true">'
        f'<rect width="{width}" height="8" rx="4" class="rail"/>'
        f'<rect width="{share * width:.1f}" height="8" rx="4" class="made"/></svg>'
    )
