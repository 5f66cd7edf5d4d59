"""Self-contained HTML pages about runs."""

from reports.comparison import aggregate as aggregate
from reports.comparison import paired_differences as paired_differences
from reports.comparison import write_comparison as write_comparison

__all__ = ["aggregate", "paired_differences", "write_comparison"]
