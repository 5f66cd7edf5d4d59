"""Avalanche, both ways: its benchmarks as streams, and our streams as its benchmarks.

For avalanche-lib 0.6 (Carta et al., "Avalanche: A PyTorch Library for Deep Continual Learning", JMLR 24, 2023), which
is imported only inside functions here: that takes seconds. It chooses neither pixels nor names. A sample is called
after its row in the data set that the benchmark was cut from, so its id depends on no order, seed or position; its
image is that data set's own, without the augmentation and normalisation that benchmarks bake in.
"""

from streams.avalanche.benchmarks import Classic as Classic
from streams.avalanche.conversion import BenchmarkStream as BenchmarkStream
from streams.avalanche.conversion import from_avalanche as from_avalanche
from streams.avalanche.export import to_avalanche as to_avalanche
