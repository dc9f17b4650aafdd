"""The templates that a report is filled into: one self-contained page, light and dark, no scripts.

All HTML stands in `templates/`. Jinja escapes every value that is filled in, wherever it stands;
what `fill` returns is HTML already and goes into the next template as it is.
"""

import base64

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from l2dm import escape
from l2dm.doors import SIGNS, marked


def fill(template: str, **values: object) -> Markup:
    """One template with its values, as HTML. Raises UndefinedError if a value is missing."""
    return Markup(_TEMPLATES.get_template(template).render(values))


def number(value: float | None, digits: int = 2) -> str:
    """A number for reading; a dash where it is missing, never 0, and no minus before a zero."""
    if value is None:
        return "–"
    shown = f"{value:.{digits}f}"
    return shown.replace("-", "−") if float(shown) else shown.lstrip("-")


def data_uri(png: bytes) -> str:
    """A PNG as an address that carries the picture itself."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _shown(value: object) -> object:
    """A text without characters that HTML cannot hold or that turn the reading direction."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return escape.lines(value)


_TEMPLATES = Environment(
    loader=PackageLoader("l2dm.reporting"),
    autoescape=True,  # whatever a template's name ends in
    undefined=StrictUndefined,
    finalize=_shown,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters.update(
    number=number,
    data_uri=data_uri,
    marked=lambda verdict: marked(verdict.reasons, verdict.findings),
)
_TEMPLATES.globals.update(signs=SIGNS)
