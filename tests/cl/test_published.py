"""The metrics on published curves give the published averages (EASE, CVPR 2024: released logs and Table 1, IN21K)."""

from __future__ import annotations

import pytest

from cl.metrics import average_incremental_accuracy

CURVES = {
    "CIFAR B0 Inc5": (
        91.51,
        "99.40 98.20 97.27 96.45 96.28 94.90 93.26 92.95 92.27 91.00 90.00 89.98 89.34 89.29 88.40 "
        "86.80 86.33 86.10 86.27 85.80",
    ),
    "CUB B0 Inc10": (
        92.22,
        "100 98.38 98.26 97.58 97.33 93.90 92.29 93.14 93.25 91.75 91.48 90.18 89.56 89.40 88.57 88.74 "
        "88.10 88.11 87.57 86.81",
    ),
    "ImageNet-R B0 Inc20": (81.74, "93.32 87.51 84.85 82.95 80.10 79.09 78.43 78.01 76.94 76.17"),
    "ImageNet-A B0 Inc20": (65.34, "82.29 75.56 71.01 67.19 65.28 63.59 59.95 57.85 55.63 55.04"),
    "ObjectNet B0 Inc10": (
        70.84,
        "91.27 87.18 83.72 81.99 79.12 77.19 74.89 72.62 70.40 70.46 68.64 67.02 65.22 64.19 62.86 "
        "61.72 61.00 59.86 59.56 57.86",
    ),
    "VTAB B0 Inc10": (93.61, "96.20 92.50 92.96 92.82 93.55"),
}


@pytest.mark.parametrize("name", CURVES)
def test_average_incremental_accuracy(name: str) -> None:
    published, curve = CURVES[name]
    fractions = [float(value) / 100 for value in curve.split()]
    assert 100 * average_incremental_accuracy(fractions) == pytest.approx(published, abs=0.0151)
