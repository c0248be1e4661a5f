"""Charts of a comparison as SVG: AUROC over the number of images, and files that open by themselves."""

from collections.abc import Sequence
from html import escape
from math import ceil, floor
from pathlib import Path
from typing import Any

from kb.files import atomic_write

# The page has these colours in its style sheet, for light and dark; a file of its own has light ones only.
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1c1b19}.muted{fill:#6b675f;font-size:12px}.name,.value{font-weight:600}"
    ".rule{stroke:#e2ded6}.bar{stroke-width:3;stroke-linecap:round}.plain{stroke:#7a8699;fill:#7a8699}"
    ".accent{stroke:#b4471f;fill:#b4471f}.seed{fill:#6b675f;opacity:.6}.line{fill:none;stroke-width:2}"
    ".line.accent{stroke-width:3}"
)
DASHES = ("none", "6 4", "2 3", "10 3", "8 3 2 3", "1 4", "12 4 2 4", "4 2")


def line_plot(
    series: Sequence[dict[str, Any]], x_label: str, y_label: str = "AUROC", width: int = 760, height: int = 360
) -> str:
    """Lines with interval bars; series: title, accent, points (x, y, low, high). Lines differ by dashes, not by colour
    alone; titles stand at the right ends."""
    left, right, top, bottom = 60, 230, 14, 52
    points = [p for s in series for p in s["points"]]
    ys = [v for p in points for v in p[1:]]
    low, high = max(0.0, floor(min(ys) * 20) / 20), min(1.0, ceil(max(ys) * 20) / 20)
    high, most = max(high, low + 0.05), max(p[0] for p in points) or 1.0

    def at(x: float, y: float) -> tuple[float, float]:
        across = left + x / most * (width - left - right)
        return across, top + (high - y) / (high - low) * (height - top - bottom)

    out = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(y_label)} against {escape(x_label)}">']
    apart = 0.05 if high - low <= 0.5 else 0.1
    for n in range(int((high - low) / apart + 1e-9) + 1):
        tick = low + apart * n
        start, end = at(0, tick), at(most, tick)
        out.append(f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" class="rule"/>')
        out.append(_text(left - 8, start[1] + 4, f"{tick:.2f}", "muted", "end"))
    for x in sorted({p[0] for p in points}):
        out.append(_text(at(x, low)[0], height - bottom + 18, f"{x:g}", "muted", "middle"))
    out.append(_text(left + (width - left - right) / 2, height - 10, x_label, "muted", "middle"))
    ends = _spread([at(*s["points"][-1][:2])[1] for s in series])
    for n, s in enumerate(series):
        kind = "accent" if s.get("accent") else "plain"
        places = [(at(x, y), at(x, a)[1], at(x, b)[1]) for x, y, a, b in s["points"]]
        path = " ".join(f"{p[0]:.1f},{p[1]:.1f}" for p, _, _ in places)
        dash = DASHES[n % len(DASHES)]
        out.append(f'<polyline points="{path}" class="line {kind}" style="fill:none" stroke-dasharray="{dash}"/>')
        for (x, y), a, b in places:
            out.append(f'<line x1="{x:.1f}" y1="{a:.1f}" x2="{x:.1f}" y2="{b:.1f}" class="{kind}" stroke-width="1"/>')
            out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" class="{kind}"/>')
        x, y = places[-1][0]
        out.append(f'<line x1="{x + 5:.1f}" y1="{y:.1f}" x2="{x + 16:.1f}" y2="{ends[n]:.1f}" class="rule"/>')
        out.append(_text(x + 20, ends[n] + 4, s["title"], "name" if s.get("accent") else ""))
    return "".join(out) + "</svg>"


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _spread(places: Sequence[float], apart: float = 16.0) -> list[float]:
    """Heights of labels near `places` that do not touch each other."""
    order = sorted(range(len(places)), key=lambda n: places[n])
    out, last = [0.0] * len(places), float("-inf")
    for n in order:
        last = max(places[n], last + apart)
        out[n] = last
    return out


def write_svg(path: Path, drawing: str) -> None:
    """Write a chart of the page as a file of its own, with its colours."""
    head, rest = drawing.split(">", 1)
    head = head.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    with atomic_write(path) as temporary:
        temporary.write_text(f"{head}><style>{STYLE}</style>{rest}\n", encoding="utf-8")
