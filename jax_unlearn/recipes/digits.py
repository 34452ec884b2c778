"""The default job on scikit-learn's digits, and all methods on its request.

600 of the 1,000 training images are trained on, 400 are held out as unseen data. The
request asks for 30 % of the 600, long-tailed over the classes (γ = 1): the head class
gives up most of its images. Settings are the best of twelve trials a method, on seeds
that no table uses. In the table of all methods, those of the default job keep the
settings found for it. Two methods are made for another problem and have a table of
their own beside rivals: UNSIR, which forgets a whole class, and DeltaGrad, which
retraces the training of a linear network by full batches.
"""

from collections.abc import Sequence

from jax_unlearn.lab import Plan, Training
from jax_unlearn.recipes.search import packaged
from jax_unlearn.recipes.study import Part, Study

TRAINING = Training(network="small_cnn", width=8, epochs=40, learning_rate=0.1)
UNSEEN = 400
SEARCH_SEEDS = (100, 101, 102, 103)
_GRIDS = packaged("grids/digits.toml")
_LINEAR = Training(
    "linear", epochs=200, batch_size=1000, momentum=0.0, learning_rate=0.5
)

DEMO = Study(
    "demo-digits",
    "Digits",
    UNSEEN,
    TRAINING,
    {"demo": Part("forget 30 %, long-tailed", "long_tailed", 0.3, grid=_GRIDS["demo"])},
    search_seeds=SEARCH_SEEDS,
    note=" (jax-unlearn tune); reported on other seeds",
)
"""What `jax-unlearn` does without a command."""


def digits_plan(*, seeds: Sequence[int] | None = None) -> Plan:
    """Return the plan of the default job, by default with seeds 0 to 4.

    >>> len(digits_plan().methods)
    10
    """
    return DEMO.plan("demo", seeds=seeds)


DEMO_DIGITS = DEMO.recipe(
    "what jax-unlearn does without a command",
    "1 min",
    title="The default job: ten methods on digits",
    page="demo",
)

FIELD_DIGITS = Study(
    "field-digits",
    "Digits",
    UNSEEN,
    TRAINING,
    {
        "field": Part(
            "all methods, long-tailed",
            "long_tailed",
            0.3,
            grid=_GRIDS["field"],
            more=(lambda settings: {**digits_plan().methods, **settings},),
        ),
        "class": Part("forget a class", "class", 1.0, grid=_GRIDS["class"]),
        "linear": Part(
            "a linear network, 10 % at random",
            "random",
            0.1,
            grid=_GRIDS["linear"],
            training=_LINEAR,
        ),
    },
    seeds=(0, 1, 2),
    search_seeds=SEARCH_SEEDS,
    note=" (jax-unlearn recipe field-digits --tune)",
).recipe(
    "all methods: long-tailed, a class, a linear network",
    "10 min",
    title="All methods on digits",
    page="field",
)
