"""Avalanche's strategies as baselines of ours, and our strategies in Avalanche's loop.

For avalanche-lib 0.6 (Carta et al., "Avalanche: A PyTorch Library for Deep Continual Learning", JMLR 24, 2023), which
is imported only inside functions here: that takes seconds.

A baseline is Avalanche's own code on the features of our frozen backbone, or on the images (`strategy`). What it has
learnt after a task is one opaque component (`state`): model, optimiser, replay memory and whatever else its plugins
keep. It is made from the one before and the task's images, so a deletion builds all of them again from the first task
that held a deleted sample.
"""

from strategies.avalanche.loop import avalanche_strategy as avalanche_strategy
from strategies.avalanche.strategy import baseline as baseline
