"""What a run is told: how to train and how to unlearn.

Plain frozen dataclasses of numbers and names, so that the command line, a JSON file and
a recipe say the same thing; the library itself takes functions, not names.
"""

import dataclasses
from typing import Any

from jax_unlearn.errors import InputError, unknown_name
from jax_unlearn.lab.catalog import CATALOG, Entry

METHODS = tuple(CATALOG)
WEIGHTINGS = (
    "auto",
    "uniform",
    "loreun",
    "loreun_static",
    "falw",
    "sfron",
    "el2n",
    "margin",
)
ESTIMATORS = ("exact", "every", "streaming", "anchored")
HARMONIZERS = ("auto", "none", "one_way", "two_way")
STRATEGIES = ("uniform", "class_skewed", "feature_cluster", "hard", "nearest")
ATTACKS = ("logistic", "softmax_mlp", "entropy_mlp", "gaussian_ratio")
RANKINGS = (
    "confidence",
    "el2n",
    "margin",
    "gradient_norm",
    "neighbours",
    "reference",
)
OPTIMIZERS = ("sgd", "adam")
FORMS = ("published", "exact")
SCHEDULES = ("merged", "zipped", "sequential")
NORMALIZATIONS = ("mean_one", "none")
NETWORKS = ("small_cnn", "mlp", "linear", "resnet8", "resnet18", "resnet20", "vgg16")
AUGMENTATIONS = ("none", "flip", "flip_crop")
DTYPES = ("float32", "bfloat16")
MAX_WIDTH = 65536  # XLA aborts the process on sizes that no memory holds


@dataclasses.dataclass(frozen=True)
class Training:
    """How the original model and Retrain are trained: SGD, cosine learning rate.

    Attributes:
      network: name of the architecture.
      width: channels of the first block (units, for mlp); 0 takes the usual number.
      dtype: of the computation; parameters are float32.
      epochs: passes over the training samples.
      batch_size: samples a step.
      learning_rate: the peak, falling to 0 along a cosine.
      momentum: of SGD.
      weight_decay: added to the gradient, times the weight.
      augment: random flips and crops, inside the compiled step.

    >>> Training(epochs=0)
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: epochs=0 must be at least 1
    """

    network: str = "small_cnn"
    width: int = 0
    dtype: str = "float32"
    epochs: int = 40
    batch_size: int = 64
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augment: str = "none"

    def __post_init__(self):
        _known("network", self.network, NETWORKS)
        _known("dtype", self.dtype, DTYPES)
        _known("augment", self.augment, AUGMENTATIONS)
        _at_least("width", self.width, 0)
        if self.width > MAX_WIDTH:
            raise InputError(
                f"width={self.width} must be at most {MAX_WIDTH}; 0 takes the usual one"
            )
        _check_sgd(self)


@dataclasses.dataclass(frozen=True)
class Unlearning:
    """How a model forgets: a method, a weighting, an optimizer.

    Attributes:
      method: name of the method; some read the retain set, some the forget set, some
        both.
      weighting: of the forget samples; "auto": sfron for sfron, uniform for the others.
      harmonizer: what becomes of gradients that disagree (ltu, or zipped schedule);
        "auto": one_way for ltu, none for the others.
      per_leaf: look for conflicts leaf by leaf, not over the whole gradient.
      schedule: "merged": batches of the union in one forward pass; "zipped": a forget
        and a retain batch each step; "sequential": all forget batches, then all retain
        batches, each epoch. Some methods have a schedule of their own.
      rho: share of the retain set that the method may read.
      epochs: passes over that share (over the forget set for methods that read no
        other).
      batch_size: samples a step (of each set, if zipped; of the forget set, for ltu).
      optimizer: "sgd" or "adam".
      learning_rate: constant.
      momentum: of SGD.
      weight_decay: added to the gradient, times the weight.
      clip: largest L2 norm of the gradient; 0 does not clip.
      freeze_statistics: leave BatchNorm statistics as they are; ltu always does.
      microbatch: samples a pass through the network, for batches that memory does not
        hold; weights are normalised over the batch all the same. 0: all at once.
      remat: compute intermediate values again in the backward pass (of ltu: in the
        second-order step too), to save memory; changes no result.
      guard_utility: percent; the run stops where the accuracy on a tenth of the retain
        samples, kept from it for that, is under it. 0 does not look.
      guard_endpoint: stop where the forget samples are no surer than unseen ones.
      guard_every: steps from one look of the guards to the next.
      guard_roll_back: end with the last state that passed, not with the one that did
        not.
      temperature: of loreun, el2n and margin.
      relative: measure the temperature in standard deviations of the scores.
      normalize: of loreun: weights of mean one, or raw ("none").
      power: of sfron.
      tau: exponent of FaLW's class balance.
      estimator: where FaLW's class moments come from.
      every: steps between two estimates, for estimator "every".
      decay: memory of estimator "streaming".
      keep: fraction of the weights that SalUn may move.
      threshold: soft threshold a step, of salun_soft.
      penalty: l1 penalty of l1_sparse.
      alpha: share of the retain loss in neggrad_plus.
      salient: move only SalUn's salient weights, whatever the method.
      ranking: of endpoint_transport: score of the original model that says which forget
        samples would be predicted well unseen; "neighbours": the share of the nearest
        retain samples of the same class; "reference": trees grown on the retain samples
        are asked too, and unseen samples weighted to be as easy as the forget samples.
      bound: of boundary_shrink: how far its neighbours are, for pixels in 0..1.
      forget_every: of sfron: steps from one ascent to the next.
      peak: of sfron: strength of the first ascent, in learning rates.
      ascent_clip: of sfron: largest L2 norm of the ascent's gradient.
      forget_epochs: of scrub: how many of the epochs begin with the forget set.
      rewind: of scrub: take the epoch whose forget error is nearest to that of unseen
        samples (SCRUB+R).
      teacher_temperature: of scrub and bad_teacher; None: as published, 4 and 1.
      distill_share: of scrub: weight of the teacher on the retain set.
      task_share: of scrub: weight of the labels on the retain set.
      impair_epochs: of unsir: epochs with noise, before `epochs` of repair.
      noise_steps: of unsir: steps that make the noise.
      samples: of influence: gradients in the inverse Fisher matrix at most.
      strength: of influence: times its step.
      form: of influence: "published", the recursion of the public code, or "exact".
      selection: of ssd: how many times more important to the forget set than to all a
        weight must be to be dampened.
      dampening: of ssd: factor of the dampened weights' ratio.
      noise: of fisher_forgetting: variance where the Fisher information is 1.
      burn_in: of deltagrad: first steps that are exact.
      period: of deltagrad: steps from one exact step to the next.
      history: of deltagrad: pairs of its quasi-Newton memory.
      strategies: of ltu: how its queries are drawn from the retain samples, one query
        batch each; a name may be repeated.
      query_size: samples of each query.
      attacks: of ltu: its membership models; a name may be repeated, for another fit.
      allow_weak: go on where no attack is better than chance, instead of refusing.
      shadows: number of shadow models to train the attacks on, instead of the model
        itself; their AUC is measured on the model all the same.
      inner_rate: learning rate of ltu's virtual step; 0 does not look ahead.
      first_order: take the virtual step's gradient for a constant.

    >>> Unlearning(keep=2.0)
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: keep=2.0 must lie in (0, 1]; try 0.5
    """

    method: str = "random_label"
    weighting: str = "auto"
    harmonizer: str = "auto"
    per_leaf: bool = False
    schedule: str = "merged"
    rho: float = 1.0
    epochs: int = 5
    batch_size: int = 64
    optimizer: str = "sgd"
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip: float = 0.0
    freeze_statistics: bool = False
    microbatch: int = 0
    remat: bool = False
    guard_utility: float = 0.0
    guard_endpoint: bool = False
    guard_every: int = 10
    guard_roll_back: bool = False
    temperature: float = 1.0
    relative: bool = False
    normalize: str = "mean_one"
    power: float = 0.5
    tau: float = 0.15
    estimator: str = "exact"
    every: int = 4
    decay: float = 0.9
    keep: float = 0.5
    threshold: float = 1e-5
    penalty: float = 1e-4
    alpha: float = 0.95
    salient: bool = False
    ranking: str = "confidence"
    bound: float = 0.1
    forget_every: int = 5
    peak: float = 25.0
    ascent_clip: float = 7.0
    forget_epochs: int = 2
    rewind: bool = False
    teacher_temperature: float | None = None
    distill_share: float = 0.001
    task_share: float = 0.99
    impair_epochs: int = 1
    noise_steps: int = 40
    samples: int = 1000
    strength: float = 1.0
    form: str = "published"
    selection: float = 10.0
    dampening: float = 1.0
    noise: float = 1e-6
    burn_in: int = 10
    period: int = 5
    history: int = 2
    strategies: tuple[str, ...] = STRATEGIES
    query_size: int = 32
    attacks: tuple[str, ...] = ATTACKS
    allow_weak: bool = False
    shadows: int = 0
    inner_rate: float = 0.003
    first_order: bool = False

    def __post_init__(self):
        for name in ("strategies", "attacks"):  # JSON has lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        _known("method", self.method, METHODS)
        if self.weighting == "auto":
            own = "sfron" if self.method == "sfron" else "uniform"
            object.__setattr__(self, "weighting", own)
        _known("weighting", self.weighting, WEIGHTINGS)
        _known("harmonizer", self.harmonizer, HARMONIZERS)
        _known("optimizer", self.optimizer, OPTIMIZERS)
        _known("schedule", self.schedule, SCHEDULES)
        _known("estimator", self.estimator, ESTIMATORS)
        _known("normalize", self.normalize, NORMALIZATIONS)
        _check_sgd(self)
        if not 0 <= self.clip < float("inf"):
            raise InputError(
                f"clip={self.clip} must not be negative or infinite; 0 does not clip"
            )
        if not 0 < self.temperature < float("inf"):
            raise InputError(
                f"temperature={self.temperature} must be positive and finite; try 1.0"
            )
        if not 0 < self.keep <= 1:
            raise InputError(f"keep={self.keep} must lie in (0, 1]; try 0.5")
        self._check_method()
        self._check_guards()
        if not 0 < self.rho <= 1:
            raise InputError(
                f"rho={self.rho} must lie in (0, 1]: the share of the retain set that "
                "may be read; try 0.3"
            )
        if self.method == "ltu":
            self._check_ltu()

    def _check_method(self) -> None:
        """Refuse what the method does not read."""
        if self.weighting != "uniform" and not self.entry.weighs:
            raise InputError(
                f"weighting={self.weighting!r}: {self.method} has no loss of forget "
                "samples to weight; leave it uniform or choose another method"
            )
        joins = self.method == "ltu" or (
            self.schedule == "zipped" and self.entry.schedule
        )
        if self.harmonizer not in ("auto", "none") and not joins:
            raise InputError(
                f"harmonizer={self.harmonizer!r} needs method='ltu', or "
                "schedule='zipped' and a method of two gradients"
            )
        if self.salient and self.entry.kind != "steps":
            raise InputError(
                f"salient=True: {self.method} takes no steps to mask; leave it out"
            )
        if self.rho != 1 and self.entry.kind == "one-shot" and self._retraces:
            raise InputError(
                f"rho={self.rho}: {self.method} goes through the whole training again; "
                "leave it at 1"
            )
        for name in ("forget_every", "forget_epochs", "impair_epochs", "noise_steps"):
            _at_least(name, getattr(self, name), 1)
        _at_least("microbatch", self.microbatch, 0)
        for name in ("samples", "period", "history"):
            _at_least(name, getattr(self, name), 1)
        _at_least("burn_in", self.burn_in, 2)
        _known("form", self.form, FORMS)
        _known("ranking", self.ranking, RANKINGS)
        for name in ("bound", "ascent_clip", "selection", "dampening"):
            _positive(name, getattr(self, name))
        for name in ("peak", "distill_share", "task_share", "noise", "strength"):
            _not_negative(name, getattr(self, name))
        for name in ("power", "tau", "threshold", "penalty"):
            _not_negative(name, getattr(self, name))
        if self.teacher_temperature is not None:
            _positive("teacher_temperature", self.teacher_temperature)

    def _check_guards(self) -> None:
        if not 0 <= self.guard_utility <= 100:
            raise InputError(
                f"guard_utility={self.guard_utility} must be a percentage, 0 to 100; "
                "try 90"
            )
        _at_least("guard_every", self.guard_every, 1)
        guarded = self.guard_utility > 0 or self.guard_endpoint
        if guarded and self.entry.kind != "steps":
            raise InputError(
                f"guard_utility, guard_endpoint: {self.method} takes no steps to end "
                "between; leave them out"
            )
        if guarded and self.rewinds:
            raise InputError(
                "rewind=True chooses among all epochs, guards end before the last; "
                "leave one of them out"
            )

    def _check_ltu(self) -> None:
        for strategy in self.strategies:
            _known("strategies", strategy, STRATEGIES)
        for attack in self.attacks:
            _known("attacks", attack, ATTACKS)
        if not self.strategies:
            raise InputError(
                f"strategies=(): ltu needs one or more of {', '.join(STRATEGIES)}"
            )
        if len(self.attacks) < 2:
            raise InputError(
                f"attacks={self.attacks}: ltu needs 2 or more membership models of "
                f"{', '.join(ATTACKS)}"
            )
        if self.batch_size < len(self.attacks):
            raise InputError(
                f"batch_size={self.batch_size} is less than the {len(self.attacks)} "
                "attacks, each of which looks at a part of the batch; try 64"
            )
        _at_least("query_size", self.query_size, 1)
        _at_least("shadows", self.shadows, 0)
        if not 0 <= self.inner_rate < float("inf"):
            raise InputError(
                f"inner_rate={self.inner_rate} must not be negative; try 0.003"
            )

    @classmethod
    def of(cls, **values: Any) -> "Unlearning":
        """Return the setting of flat values, as records, files and recipes have them.

        Args:
          **values: fields of any of the groups; what is left out has its default.

        >>> Unlearning.of(method="salun", keep=0.3).but(keep=0.5).flat()["keep"]
        0.5
        """
        return cls(**values)

    def but(self, **changes: Any) -> "Unlearning":
        """Return the setting with other values; see `of`."""
        return dataclasses.replace(self, **changes)

    def flat(self) -> dict[str, Any]:
        """Return all values by name; `of` takes them again."""
        return dict(vars(self))

    @property
    def _retraces(self) -> bool:
        return "training" in self.entry.reads

    @property
    def entry(self) -> Entry:
        """What the catalog says of the method."""
        return CATALOG[self.method]

    @property
    def freezes_statistics(self) -> bool:
        """Whether BatchNorm statistics stay; ltu's queries are skewed on purpose."""
        return self.freeze_statistics or self.method == "ltu"

    @property
    def needs_unseen(self) -> bool:
        """Whether the method reads unseen samples."""
        asked = self.rewinds or self.needs_unseen_classes
        return self.method == "ltu" or asked

    @property
    def rewinds(self) -> bool:
        """Whether the best epoch is chosen at the end."""
        return self.method == "scrub" and self.rewind

    @property
    def needs_unseen_classes(self) -> bool:
        """Whether it reads unseen samples of every class that is forgotten."""
        compares = self.method == "endpoint_transport" or self.guard_endpoint
        return self.weighting == "falw" or compares


def _known(kind: str, name: str, names: tuple[str, ...]) -> None:
    if name not in names:
        raise unknown_name(kind, name, names)


def _positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise InputError(f"{name}={value} must be positive and finite")


def _not_negative(name: str, value: float) -> None:
    if not 0 <= value < float("inf"):
        raise InputError(f"{name}={value} must not be negative or infinite")


def _at_least(name: str, value: int, low: int) -> None:
    if not value >= low:
        raise InputError(f"{name}={value} must be at least {low}")


def _check_sgd(setting: Training | Unlearning) -> None:
    _at_least("epochs", setting.epochs, 1)
    _at_least("batch_size", setting.batch_size, 1)
    if not 0 < setting.learning_rate < float("inf"):
        raise InputError(
            f"learning_rate={setting.learning_rate} must be positive and finite"
        )
    if not 0 <= setting.momentum < 1:
        raise InputError(f"momentum={setting.momentum} must lie in [0, 1)")
    if not 0 <= setting.weight_decay < float("inf"):
        raise InputError(
            f"weight_decay={setting.weight_decay} must not be negative or infinite"
        )
