"""AdapterSwap, Fleshman et al., CAMLIS 2024: `method` reads like the paper, the other files are what it names."""

from strategies.adapterswap.method import AdapterSwap as AdapterSwap
