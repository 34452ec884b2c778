"""Certified unlearning by noisy fine-tuning, and the (ε, δ) statement that it earns."""

import dataclasses
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import optax

from jax_unlearn import _validate, harmonize, objectives, programs
from jax_unlearn.cards import (
    Card,
    Count,
    Fraction,
    Job,
    Lab,
    NotNegative,
    Options,
    Positive,
)
from jax_unlearn.contracts import usable
from jax_unlearn.errors import InputError
from jax_unlearn.leaves import apart, divided, put_back
from jax_unlearn.methods.accountant import (
    NoisySteps,
    check,
    guarantee_of,
    noise_scale,
    noisy_steps,
    renyi_of,
    renyi_rate,
)
from jax_unlearn.methods.assemble import Assembly, assemble
from jax_unlearn.methods.step import kept
from jax_unlearn.types import (
    LossFn,
    Model,
    ModelState,
    Params,
    PyTree,
    Unlearner,
    copied,
)

__all__ = ["CERTIFIED", "Certified", "certified"]


class CertifiedData(NamedTuple):
    """What travels in the state: the objectives' arrays, and the centre, if any."""

    inner: PyTree
    centre: PyTree


def certified(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    sigma: float,
    phase: NoisySteps,
    fresh_state: ModelState,
    centre: Params | None = None,
    retain: LossFn | None = None,
    **options: Unpack[Assembly],
) -> Unlearner:
    """Fine-tune with noise, then without: certified unlearning of any network.

    `init` scales the parameters to a norm of C0 or less. For T steps θ ← θ − η·(clip(g,
    C1) + λθ) + N(0, σ²), g the gradient on the retain batch, the noise drawn for each
    step and leaf by the step's key; after them the optimizer fine-tunes as
    `ju.methods.finetune` does, its state and the batch statistics fresh.

    The law of the parameters is (ε, δ)-close to that of the same run from any other
    start, one that never saw the forget set among them: `guarantee_of(renyi_rate(sigma,
    phase), delta)`. That needs nothing of the loss, the data or how the original was
    trained. It needs retain batches that do not depend on the forget set; a key that
    nobody knows; parameters that all move, none frozen; and of the run its end alone:
    earlier states, averages over them (`ema`) and stops at what they show are not
    covered, nor is anything else made from the forget set, such as a mask.

    Args:
      model: the network.
      optimizer: of the steps after the noisy ones; any optax transformation.
      sigma: σ, from `noise_scale`.
      phase: T, C0, C1, η, λ.
      fresh_state: batch statistics of a new initialisation (`model.init` with a key of
        its own): the original's know the forget set. Noisy steps leave them alone.
      centre: parameters that know no data, such as a new initialisation, around which
        the norm is measured and to which λ pulls; default 0, as published.
      retain: default the cross-entropy.
      **options: of `assemble`, for the steps after.

    Raises:
      InputError: numbers out of range; in the step, if there is no retain batch.

    Reference: Koloskova et al., arXiv 2506.06985 ("gradient clipping"); fresh
    statistics and the centre are our choice.

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> phase = NoisySteps(1, model_clip=1.0, gradient_clip=1.0, rate=0.5)
    >>> alg = certified(model, optax.sgd(1.0), sigma=0.1, phase=phase, fresh_state=())
    >>> print(alg.init(jnp.float32(2.0), ()).params)
    1.0
    """
    check(phase)
    _validate.not_negative("sigma", sigma, "see noise_scale")
    loss = objectives.descent(model) if retain is None else retain
    tuned = assemble(model, optimizer, retain=loss, **options)
    minimiser = optax.with_extra_args_support(optimizer)
    join = options.get("harmonizer") or harmonize.add()
    bare: Assembly = {**options, "harmonizer": harmonize.separate}

    def init(params, model_state):
        del model_state  # it knows the forget set
        part, whole = divided(params)
        start = _centre(centre, part)
        moved = _clipped(optax.tree.sub(part, start), phase.model_clip)
        moved = optax.tree.cast_like(optax.tree.add(start, moved), part)
        state = tuned.init(whole(moved), fresh_state)
        data = CertifiedData(state.objective_state, copied(start if centre else ()))
        return state._replace(objective_state=data)

    def noised(grads, part, start, key):
        """Return the change of a noisy step, in float32."""
        pull = optax.tree.scale(phase.decay, optax.tree.sub(part, start))
        step = optax.tree.add(_clipped(grads, phase.gradient_clip), pull)
        noise = optax.tree.random_like(
            key, optax.tree.cast(part, jnp.float32), jax.random.normal
        )
        return jax.tree.map(lambda g, n: sigma * n - phase.rate * g, step, noise)

    def step(state, batch, key):
        batch = usable(batch)
        if batch.retain is None:
            raise InputError(
                "certified reads a retain batch each step; use ju.data.retain_only"
            )
        data, noisy = state.objective_state, state.step < phase.steps
        noise_key = jax.random.split(key, 3)[2]  # the losses' are the first two

        # Both kinds of step share one gradient, for a branch that holds a gradient of
        # convolutions is slow on CPUs. The harmonizer is of the plain steps alone.
        def update(updates, state, params=None, **told):
            grads = updates.retain
            alone = isinstance(join, harmonize.Separately)
            joined = join(None if alone else optax.tree.zeros_like(grads), grads)
            told = {**told, "grad": joined}
            plain, after = minimiser.update(joined, state, params, **told)
            start = data.centre if centre else _centre(None, params)
            change = jax.lax.cond(
                noisy,
                lambda: noised(grads, params, start, noise_key),
                lambda: optax.tree.zeros_like(params, jnp.float32),
            )
            change = optax.tree.cast_like(change, plain)
            return kept(noisy, change, plain), kept(noisy, state, after)

        either = optax.GradientTransformationExtraArgs(optimizer.init, update)
        new, info = assemble(model, either, retain=loss, **bare).step(
            state._replace(objective_state=data.inner),
            batch._replace(forget=None),
            key,
        )
        before, frozen = apart(state.model_state)  # else a choice would copy it
        rested = put_back(kept(noisy, before, apart(new.model_state)[0]), frozen)
        return new._replace(objective_state=data, model_state=rested), info

    return Unlearner(init, step)


def _centre(centre: Params | None, part: PyTree) -> PyTree:
    """Return the centre's leaves, or zeros."""
    if centre is None:
        return optax.tree.zeros_like(part)
    own = divided(centre)[0]
    _validate.same_shapes("centre", own, part, "initialise the same network")
    return own


def _clipped(tree: PyTree, largest: float) -> PyTree:
    """Scale a tree to a norm of at most `largest`, in float32."""
    tree = optax.tree.cast(tree, jnp.float32)
    norm = optax.tree.norm(tree)
    factor = jnp.minimum(1.0, largest / jnp.where(norm > 0, norm, 1.0))
    return optax.tree.scale(factor, tree)


@dataclasses.dataclass(frozen=True)
class Certified(Options):
    """Options of certified noisy fine-tuning.

    Attributes:
      epsilon: ε of the guarantee; the noise follows from it.
      delta: δ of the guarantee.
      model_clip: C0, norm to which the original's parameters are scaled.
      gradient_clip: C1, largest norm of the gradient of a noisy step.
      noise_rate: learning rate η of the noisy steps.
      noise_decay: weight decay λ of the noisy steps, by which the influence of the
        start fades.
      noise_steps: number T of noisy steps, out of the steps of all epochs. Default: as
        published, C0/(C1 η) or ln(2 λ C0/C1)/(η λ).
      fresh_centre: measure the norm from a new initialisation, and pull to it, instead
        of from and to 0: the fine-tuning then begins near what a network begins at.
    """

    epsilon: Positive = 1.0
    delta: Fraction = 1e-5
    model_clip: Positive = 1.0
    gradient_clip: Positive = 5.0
    noise_rate: Positive = 0.001
    noise_decay: NotNegative = 500.0
    noise_steps: Count | None = None
    fresh_centre: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.delta == 1:
            raise InputError("delta=1 guarantees nothing; try 1e-5")
        if self.noise_rate * self.noise_decay >= 1:
            raise InputError(
                f"noise_rate={self.noise_rate}, noise_decay={self.noise_decay}: their "
                "product must be below 1; give a decay below "
                f"{1 / self.noise_rate:g}"
            )

    @property
    def phase(self) -> NoisySteps:
        """The noisy phase."""
        given = {"model_clip": self.model_clip, "gradient_clip": self.gradient_clip}
        given |= {"rate": self.noise_rate, "decay": self.noise_decay}
        return NoisySteps(self.noise_steps or noisy_steps(**given), **given)

    @property
    def sigma(self) -> float:
        """Deviation of the noise of a step."""
        return noise_scale(renyi_of(self.epsilon, self.delta), self.phase)

    def told(self) -> dict[str, Any]:
        """Return what reports show: the statement, computed, among the settings."""
        found = guarantee_of(renyi_rate(self.sigma, self.phase), self.delta)
        values = {"noise_steps": self.phase.steps, "sigma": float(f"{self.sigma:.6g}")}
        said = f"(ε = {found.epsilon:.4g}, δ = {found.delta:g}) of the parameters"
        return {**vars(self), **values, "guarantee": said}


def _certificate(options: Certified, steps: int) -> dict[str, Any]:
    """Return what the record keeps, and the command prints as "says"."""
    sigma, phase = options.sigma, options.phase
    found = guarantee_of(renyi_rate(sigma, phase), options.delta)
    return {
        **found._asdict(),
        "sigma": sigma,
        **{f"noisy_{k}" if k == "steps" else k: v for k, v in phase._asdict().items()},
        "plain_steps": steps - phase.steps,
        "says": [
            f"certificate: (ε = {found.epsilon:.4g}, δ = {found.delta:g}), from "
            f"D_α ≤ α·{found.renyi:.4g} at α = {found.order:.4g}, by {phase.steps} "
            f"noisy steps of σ = {sigma:.4g}",
            "it says: the law of these parameters is (ε, δ)-close to that of the same "
            "run from any other start, one that never saw the forget set among them; "
            "whatever the data, the loss and the original's training",
            "it assumes: nobody knows the seed, which stands in the record; the "
            "parameters alone are released, no earlier state of this run, nor a model "
            "before it; the retain samples hold no copies of the forgotten ones. It is "
            "about the parameters, not about any figure measured of them",
        ],
    }


def _certified(lab: Lab, options: Certified) -> Job:
    schedule, phase = lab.schedule("retain"), options.phase
    if phase.steps >= len(schedule):
        raise InputError(
            f"certified takes {phase.steps} noisy steps and this run has "
            f"{len(schedule)} in all, of which some must follow without noise; give "
            "more --epochs, or fewer --noise-steps"
        )
    key = jax.random.fold_in(jax.random.key(lab.seed), 1)
    params, state = programs.jit(lab.model.init)(key, lab.examples.inputs[:2])
    unlearner = certified(
        lab.model,
        lab.optimizer(),
        sigma=options.sigma,
        phase=phase,
        fresh_state=state,
        centre=params if options.fresh_centre else None,
        retain=lab.objective("remember"),
        model_state=lab.model_state,
    )
    details = {"certificate": _certificate(options, len(schedule))}
    return Job(unlearner, schedule, details=details, start=(lab.original[0], state))


def _refuse(setting) -> None:
    for name, why in (
        ("trainable", "what does not move keeps what it knows"),
        ("salient", "the mask is made of the forget set"),
        ("guarded", "a stop tells of states that the statement does not cover"),
    ):
        if value := getattr(setting, name):
            shown = "guard_utility, guard_endpoint" if name == "guarded" else name
            raise InputError(
                f"{shown}={value!r}: {why}, and the certificate is void; leave it out"
            )


CERTIFIED = (
    Card.of(_certified, "Certified", "Certified noisy fine-tuning", "arXiv 2506.06985")
    .but(reads=("retain", "original"), cost="E·R", weighs=False, step_reads=())
    .but(check=_refuse)
    .but(
        suits="Good where a guarantee is needed, not a measurement. At a small ε the "
        "noise leaves nothing of the original, so it must be followed by a full "
        "training (the original's epochs and rate), at the cost of retraining. Few "
        "epochs leave a ruined model."
    )
    .tries(learning_rate=(0.03, 0.1, 0.2), fresh_centre=(False, True), epochs=(8,))
)
