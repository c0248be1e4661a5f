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
    package: str,
    template: str,
    facts: Mapping[str, Any],
    filters: Mapping[str, Callable[..., Any]] | None = None,
    chinese: Mapping[str, str] | None = None,
) -> str:
    """Return a page from a template file of `package` and its facts; every value is escaped, a missing one is an error.

    The template finds the style that all pages share as `style` (colours for light and dark, type, headings). With
    `chinese` (English sentence -> Chinese one, as a gettext catalogue) each `{% trans %}` block stands in the page in
    both languages, classes `l-en` and `l-zh`, and the filter `both` does the same for a text of the facts.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment: Any = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    if chinese is not None:
        environment.add_extension("jinja2.ext.i18n")
        said = bilingual(chinese, trusted=True)
        environment.install_gettext_callables(said, lambda one, many, n: said(one if n == 1 else many), newstyle=True)
        environment.filters["both"] = bilingual(chinese)
    environment.filters.update(filters or {})
    style = Markup(files("tigerdata").joinpath("page.css").read_text(encoding="utf-8"))
    text = files(package).joinpath(template).read_text(encoding="utf-8")
    return environment.from_string(text).render(style=style, **facts)


def bilingual(chinese: Mapping[str, str], trusted: bool = False) -> Callable[[str], Any]:
    """Return a function from an English text to its HTML in both languages; one without a translation stays as it is.

    `trusted`: the text is a template's own and may hold tags; else it is escaped.
    """
    from markupsafe import Markup, escape

    def said(text: str) -> Any:
        safe = Markup if trusted else escape
        if text not in chinese:
            return safe(text)
        spans = Markup('<span class="l-en" lang="en">{}</span><span class="l-zh" lang="zh">{}</span>')
        return spans.format(safe(text), safe(chinese[text]))

    return said


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
