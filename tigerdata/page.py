"""Pages for people: one HTML file that opens anywhere, loads nothing and runs nothing but what is written in it."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray


def render(
    package: str, template: str, facts: Mapping[str, Any], filters: Mapping[str, Callable[..., Any]] | None = None
) -> str:
    """Return a page from a template file of `package` and its facts; every value is escaped, a missing one is an error.

    The template finds the style that all pages share as `style` (colours for light and dark, type, headings).
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(filters or {})
    style = Markup(files("tigerdata").joinpath("page.css").read_text(encoding="utf-8"))
    text = files(package).joinpath(template).read_text(encoding="utf-8")
    return environment.from_string(text).render(style=style, **facts)


def data_uri(image: NDArray[np.uint8], format: str = "PNG", quality: int = 80) -> str:
    """Return a grey [H, W] or RGB [H, W, 3] uint8 image as a data: address; `quality` is for WEBP and JPEG."""
    from PIL import Image

    options: dict[str, Any] = {"optimize": True} if format == "PNG" else {"quality": quality}
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format=format, **options)
    return f"data:image/{format.lower()};base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def script_source(script: str) -> str:
    """Return the Content-Security-Policy source that lets exactly this inline script run, and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode('ascii')}'"
