"""What every page shares: where templates are, and how a page is written."""

from __future__ import annotations

import os
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cl.errors import BadInput
from reports.quantities import quantity


def environment() -> Environment:
    """Templates with everything escaped; a name that is not there is an error."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    made.filters["quantity"] = quantity
    return made


def write_page(out: Path, html: str) -> None:
    """Write a page whole or not at all. Raises BadInput if `out` cannot be written."""
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(html, encoding="utf-8", newline="\n")
        os.replace(partial, out)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise BadInput(f"cannot write {out}: {error.strerror}; choose another place for the page") from error
