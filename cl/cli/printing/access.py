"""Users against sets of labels, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from cl.cli.printing import out


def print_matrix(matrix: Mapping[str, Any]) -> None:
    """A row a user, a column each set of labels that samples bear together."""
    heads = [escape("+".join(atom["labels"]) or "(no label)") for atom in matrix["atoms"]]
    table = Table("user", "holds", *heads, box=None)
    for one in matrix["users"]:
        cells = ["reads" if reads else "" for reads in one["reads"]]
        table.add_row(escape(one["user"]), escape(", ".join(one["labels"])), *cells)
    counts = [str(atom["samples"]) for atom in matrix["atoms"]]
    table.add_row("", "samples", *counts, style="dim")
    out.print(table)
    needs = "one of the labels" if matrix["policy"] == "any" else "every label"
    out.print(f"policy {matrix['policy']}: a user reads what bears {needs} that the user holds", highlight=False)
