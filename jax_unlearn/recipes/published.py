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
FALW_TINY = {
    "FT": 2.18,
    "RL": 4.13,
    "GA": 10.42,
    "IU": 19.61,
    "l1-sparse": 10.54,
    "SFRon": 2.93,
    "SalUn": 2.14,
    "RL + FaLW (exact)": 0.40,
}
GAMMAS = (0, 0.25, 1 / 3, 0.5, 1, 1.5, 2)
FALW_BY_GAMMA = {
    "SalUn": (1.55, 1.54, 1.54, 1.19, 2.04, 1.22, 2.29),
    "RL + FaLW (exact)": (0.68, 0.91, 0.86, 0.93, 0.93, 0.85, 1.30),
}

Printed = tuple[dict[str, float], str]

_TABLE_1 = "SalUn (arXiv 2310.12508), Table 1, CIFAR-10, ResNet-18"
_FALW = "FaLW (arXiv 2601.18650)"
_SWEEP: dict[str, Printed] = {
    f"gamma-{gamma:g}": (
        {label: gaps[at] for label, gaps in FALW_BY_GAMMA.items()},
        f"{_FALW}, γ sweep, CIFAR-100 30 %, ResNet-18",
    )
    for at, gamma in enumerate(GAMMAS)
}
_CIFAR10: dict[str, Printed] = _SWEEP | {
    "random10": (SALUN10, _TABLE_1),
    "random50": (SALUN50, _TABLE_1),
    "gamma-1": (FALW, f"{_FALW}, CIFAR-10 10 %, VGG-16"),
}
_OF = {
    "cifar100-full": _SWEEP,
    "tiny-imagenet-full": {
        "gamma-0.5": (FALW_TINY, f"{_FALW}, Tiny-ImageNet 40 %, VGG-16")
    },
}


def published(study: str, part: str) -> Printed:
    """Return the Avg. Gap that a paper prints by label, and where it stands.

    Args:
      study: of the tables.
      part: of the study; nothing is printed of some.

    >>> published("fashion", "gamma-1")[0]["RL + FaLW (exact)"]
    0.35
    >>> published("fashion", "near")
    ({}, '')
    """
    return _OF.get(study, _CIFAR10).get(part, ({}, ""))
