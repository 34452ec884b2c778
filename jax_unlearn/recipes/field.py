"""All methods of the field on digits: one protocol of search, one table, 3 seeds.

The table's request is that of the demo: 30 % of 600 images, long-tailed. Methods that
the demo has keep the settings found for it; the others are searched alike: twelve
trials each, the same search seeds. Two methods are made for another problem and have a
table of their own beside rivals: UNSIR, which forgets a whole class, and DeltaGrad,
which retraces the training of a linear network by full batches.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jax_unlearn.data import digits
from jax_unlearn.errors import unknown_name
from jax_unlearn.lab import Plan, Training, Unlearning
from jax_unlearn.recipes import digits as demo
from jax_unlearn.recipes.search import Grids, search, stored

SEEDS = (0, 1, 2)
PARTS = ("field", "class", "linear")

_SHORT = (2, 4, 8)
_LONG = (5, 10, 20)

GRIDS: dict[str, Grids] = {
    "field": {
        "NegGrad+": (
            {"method": "neggrad_plus"},
            {
                "learning_rate": (0.01, 0.03, 0.1),
                "alpha": (0.95, 0.99),
                "epochs": (5, 10),
            },
        ),
        "l1-sparse": (
            {"method": "l1_sparse"},
            {
                "learning_rate": (0.03, 0.1, 0.3),
                "penalty": (1e-4, 1e-3),
                "epochs": (10, 20),
            },
        ),
        "SalUn-soft": (
            {"method": "salun_soft", "threshold": 1e-5},
            {"learning_rate": (0.001, 0.003, 0.01, 0.03), "epochs": _SHORT},
        ),
        "BS": (
            {"method": "boundary_shrink"},
            {"learning_rate": (0.0001, 0.0003, 0.001, 0.003), "epochs": _LONG},
        ),
        "BE": (
            {"method": "boundary_expand"},
            {"learning_rate": (0.0001, 0.0003, 0.001, 0.003), "epochs": _LONG},
        ),
        "SFRon": (
            {"method": "sfron", "clip": 7.0},
            {
                "learning_rate": (0.03, 0.1, 0.3),
                "peak": (5.0, 25.0),
                "epochs": (5, 10),
            },
        ),
        "SCRUB": (
            {"method": "scrub"},
            {
                "learning_rate": (0.003, 0.01, 0.03),
                "forget_epochs": (1, 2),
                "epochs": (3, 6),
            },
        ),
        "SCRUB+R": (
            {"method": "scrub", "rewind": True},
            {
                "learning_rate": (0.003, 0.01, 0.03),
                "forget_epochs": (2, 4),
                "epochs": (4, 8),
            },
        ),
        "Bad Teacher": (
            {"method": "bad_teacher", "optimizer": "adam", "rho": 0.3},
            {"learning_rate": (1e-4, 3e-4, 1e-3, 3e-3), "epochs": (1, 2, 4)},
        ),
        "Amnesiac (relabel)": (
            {"method": "amnesiac_relabel", "optimizer": "adam"},
            {"learning_rate": (1e-4, 3e-4, 1e-3, 3e-3), "epochs": (1, 2, 4)},
        ),
        "IU": (
            {"method": "influence"},
            {
                "strength": (1.0, 3.0, 10.0, 30.0, 100.0, 300.0),
                "form": ("published", "exact"),
            },
        ),
        "SSD": (
            {"method": "ssd"},
            {"selection": (1.0, 2.0, 5.0, 10.0), "dampening": (0.3, 0.6, 1.0)},
        ),
        "Fisher": (
            {"method": "fisher_forgetting"},
            {
                "noise": (
                    *(1e-9, 1e-8, 1e-7, 3e-7, 1e-6, 3e-6),
                    *(1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 1e-2),
                )
            },
        ),
        "Amnesiac (subtract)": ({"method": "amnesiac"}, {}),
        "LTU": (
            {
                "method": "ltu",
                "query_size": 16,
                "clip": 30.0,
                "allow_weak": True,
            },
            {"learning_rate": (0.00003, 0.00006, 0.0001, 0.0003), "epochs": _LONG},
        ),
    },
    "class": {
        "FT": (
            {"method": "finetune"},
            {"learning_rate": (0.03, 0.1, 0.3), "epochs": (10, 20)},
        ),
        "RL": (
            {"method": "random_label"},
            {"learning_rate": (0.003, 0.01, 0.03), "epochs": (4, 8)},
        ),
        "BS": (
            {"method": "boundary_shrink"},
            {"learning_rate": (0.001, 0.003, 0.01), "epochs": (10, 20)},
        ),
        "SSD": (
            {"method": "ssd"},
            {"selection": (1.0, 3.0, 10.0), "dampening": (0.3, 1.0)},
        ),
        "UNSIR": (
            {"method": "unsir"},
            {"learning_rate": (0.003, 0.01, 0.03), "epochs": (1, 2)},
        ),
    },
    "linear": {
        "FT": (
            {"method": "finetune"},
            {"learning_rate": (0.03, 0.1, 0.3), "epochs": (10, 20)},
        ),
        "IU": (
            {"method": "influence", "form": "exact"},
            {"strength": (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)},
        ),
        "DeltaGrad": ({"method": "deltagrad"}, {}),
    },
}
"""By part: what is fixed and what is tried for each method."""

_LINEAR = Training(
    network="linear", epochs=200, batch_size=1000, momentum=0.0, learning_rate=0.5
)


def field_plan(part: str, *, seeds: Sequence[int] = SEEDS) -> Plan:
    """Return one of the plans.

    Args:
      part: "field" (all methods, long-tailed), "class" or "linear".
      seeds: of splits, models and methods.

    Raises:
      InputError: no such part.
    """
    if part not in PARTS:
        raise unknown_name("part", part, PARTS)
    found = stored("field_digits")[part]
    methods = {k: Unlearning.of(**v) for k, v in found["settings"].items()}
    if part == "field":
        methods = {**demo.digits_plan().methods, **methods}
    note = (
        f"Settings chosen by the smallest mean Avg. Gap of {found['trials']} trials a "
        f"method on search seeds {found['search_seeds']} (jax-unlearn recipe "
        "field-digits --tune)."
    )
    return _plan(part, methods, tuple(seeds), note)


def search_field(
    say: Callable[[str], None], *, folder: Path | None = None
) -> dict[str, Any]:
    """Search the settings of all parts; see `search`.

    Args:
      say: told a line for each trial.
      folder: where trained models and finished trials are kept.
    """
    return {
        part: search(
            _plan(part, {}, demo.SEARCH_SEEDS),
            digits(),
            grids,
            say,
            folder=None if folder is None else folder / part,
        )
        for part, grids in GRIDS.items()
    }


def _plan(
    part: str, methods: dict[str, Unlearning], seeds: tuple[int, ...], note: str = ""
) -> Plan:
    base = dataclasses.replace(
        demo.digits_plan(), methods=methods, seeds=seeds, note=note
    )
    if part == "field":
        return dataclasses.replace(base, title="Digits: all methods, long-tailed")
    if part == "class":
        return dataclasses.replace(
            base, title="Digits: forget a class", kind="class", fraction=1.0
        )
    return dataclasses.replace(
        base,
        title="Digits: a linear network, 10 % at random",
        kind="random",
        fraction=0.1,
        training=_LINEAR,
    )
