"""What the papers print, for the column beside ours.

Average gaps in percentage points, with where they were read. Their networks and data
are larger than what a CPU carries, so no difference from them is a failure to
reproduce; the order of the methods is what is compared.
"""

SALUN10 = {
    "FT": 3.78,
    "RL": 7.15,
    "GA": 4.12,
    "IU": 4.06,
    "BE": 2.76,
    "BS": 2.67,
    "l1-sparse": 2.26,
    "SalUn": 1.15,
}
SALUN50 = {
    "FT": 6.79,
    "RL": 6.65,
    "GA": 7.15,
    "IU": 5.36,
    "BE": 3.72,
    "BS": 8.13,
    "l1-sparse": 5.72,
    "SalUn": 2.65,
}
FALW = {
    "FT": 31.95,
    "RL": 3.69,
    "GA": 27.77,
    "IU": 38.18,
    "l1-sparse": 38.07,
    "SFRon": 3.68,
    "SalUn": 2.45,
    "RL + FaLW (exact)": 0.35,
}
FALW_BY_GAMMA = {
    "SalUn": {0: 1.55, 0.5: 1.19, 1: 2.04, 1.5: 1.22, 2: 2.29},
    "RL + FaLW (exact)": {0: 0.68, 0.5: 0.93, 1: 0.93, 1.5: 0.85, 2: 1.30},
}

PUBLISHED = {
    "random10": (SALUN10, "SalUn (arXiv 2310.12508), Table 1, CIFAR-10, ResNet-18"),
    "random50": (SALUN50, "SalUn (arXiv 2310.12508), Table 1, CIFAR-10, ResNet-18"),
    "gamma-1": (FALW, "FaLW (arXiv 2601.18650), CIFAR-10 10 %, VGG-16"),
} | {
    f"gamma-{gamma:g}": (
        {label: gaps[gamma] for label, gaps in FALW_BY_GAMMA.items()},
        "FaLW (arXiv 2601.18650), γ sweep, CIFAR-100 30 %, ResNet-18",
    )
    for gamma in (0, 0.5, 1.5, 2)
}
"""By part: Avg. Gap by label, and the source."""
