"""MOS: the method (`method`, `merging`, `retrieval`), its presets, and what is not in its paper (`variants`,
`released`)."""

from strategies.mos.variants import Mos as Mos
