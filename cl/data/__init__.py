"""Samples, streams, who may read them, and the images behind them."""
