"""SEMA, Wang et al., CVPR 2025: `method` reads like the paper, the other files are what it names."""

from strategies.sema.method import Sema as Sema
