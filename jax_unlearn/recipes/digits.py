"""The default job: a long-tailed request on scikit-learn's digits.

600 of the 1,000 training images are trained on, 400 are held out as unseen data. The
request asks for 30 % of the 600, long-tailed over the classes (γ = 1): the head class
gives up most of its images. The settings of the methods are chosen by `search`, with an
equal number of trials for each, on seeds that the job itself does not use.
"""

from collections.abc import Callable, Sequence
from typing import Any

from jax_unlearn.data import digits
from jax_unlearn.lab import Plan, Training, Unlearning
from jax_unlearn.recipes.search import Grids, search, stored

SEEDS = (0, 1, 2, 3, 4)
SEARCH_SEEDS = (100, 101, 102, 103)
TRAINING = Training(network="small_cnn", width=8, epochs=40, learning_rate=0.1)

_RELABEL = {
    "learning_rate": (0.001, 0.003, 0.01, 0.03),
    "epochs": (2, 4, 8),
}
_LOREUN = {
    "temperature": (0.3, 1.0),
    "learning_rate": (0.001, 0.003, 0.01),
    "epochs": (2, 4),
}

GRIDS: Grids = {
    "FT": (
        {"method": "finetune"},
        {"learning_rate": (0.03, 0.1, 0.2, 0.3), "epochs": (5, 10, 20)},
    ),
    "GA": (
        {"method": "gradient_ascent"},
        {"learning_rate": (0.0003, 0.001, 0.002, 0.003), "epochs": (5, 10, 20)},
    ),
    "RL": ({"method": "random_label"}, _RELABEL),
    "SalUn": ({"method": "salun"}, _RELABEL),
    "RL + LoReUn (static)": (
        {"weighting": "loreun_static", "relative": True},
        _LOREUN,
    ),
    "RL + LoReUn (dynamic)": ({"weighting": "loreun", "relative": True}, _LOREUN),
    "SalUn + LoReUn": (
        {"method": "salun", "weighting": "loreun", "relative": True},
        _LOREUN,
    ),
    "RL + FaLW (exact)": ({"weighting": "falw", "estimator": "exact"}, _RELABEL),
    "RL + FaLW (anchored)": ({"weighting": "falw", "estimator": "anchored"}, _RELABEL),
    "Endpoint transport": (
        {"method": "endpoint_transport"},
        {"learning_rate": (0.03, 0.1, 0.2, 0.3), "epochs": (5, 10, 20)},
    ),
}
"""What is fixed and what is tried for each method: twelve trials each."""


def digits_plan(*, seeds: Sequence[int] = SEEDS) -> Plan:
    """Return the plan of the default job.

    Args:
      seeds: of splits, models and methods.

    Raises:
      InputError: fewer than two seeds, or a seed twice.

    >>> len(digits_plan().methods)
    10
    """
    found = stored("digits")["demo"]
    return _plan(
        {name: Unlearning.of(**chosen) for name, chosen in found["settings"].items()},
        tuple(seeds),
        note=(
            f"Settings chosen by the smallest mean Avg. Gap of {found['trials']} "
            f"trials a method on search seeds {found['search_seeds']} "
            "(jax-unlearn tune); reported on other seeds."
        ),
    )


def search_digits(say: Callable[[str], None]) -> dict[str, Any]:
    """Search the settings of the default job; see `search`.

    Args:
      say: told a line for each trial.
    """
    return search(_plan({}, SEARCH_SEEDS), digits(), GRIDS, say)


def _plan(
    methods: dict[str, Unlearning], seeds: tuple[int, ...], note: str = ""
) -> Plan:
    return Plan(
        title="Digits: forget 30 %, long-tailed",
        kind="long_tailed",
        fraction=0.3,
        gamma=1.0,
        unseen=400,
        training=TRAINING,
        methods=methods,
        seeds=seeds,
        note=note,
    )
