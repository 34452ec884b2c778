"""R2D: go back to an earlier state of the original's training, and on without D_f."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jax_unlearn import _validate
from jax_unlearn.cards import Card, Fraction, Job, Lab, NotNegative, Options, Variables
from jax_unlearn.errors import InputError
from jax_unlearn.leaves import divided
from jax_unlearn.methods.accountant import guarantee_of

__all__ = ["REWIND", "Rewinding", "rewinding_distance"]


def rewinding_distance(
    rates: Any,
    begins: int,
    *,
    share: float,
    gradient: float,
    smoothness: float,
    decay: float = 0.0,
) -> float:
    r"""Return how far R2D's parameters are from those of Retrain at most, Δ.

    .. math:: Δ_{t+1} ≤ (1 + η_t (L + λ)) Δ_t + η_t \, 2 G \tfrac{m}{n} \;[t < s],
              \qquad Δ_0 = 0

    Two runs of gradient descent from one start, on means over ALL samples: on n samples
    for `begins` steps s, then on the n − m that stay; and on those from the first step
    on. `rates` are η_t, `[T]`, `share` is m/n, `gradient` a bound G on the norm of
    every sample's gradient, `smoothness` L one on how fast a mean of them turns, both
    where the runs are and between them, and `decay` λ, which pulls both alike. With a
    constant rate and λ = 0 it is (2Gm/nL)·((1 + ηL)^s − 1)·(1 + ηL)^(T−s), 0 where
    nothing is left of the original (s = 0).

    The mean gradients over all n and over the n − m are 2Gm/n apart at most: m/n times
    the difference of the means over those that go and those that stay. A step on one
    set takes two points 1 + η(L + λ) times as far apart, at most.

    Reference: R2D (Mu and Klabjan, arXiv 2409.09778) proves such a bound for gradient
    descent with a checkpoint, bounded gradients and L-smooth losses, and noise at the
    end; the derivation and the constants here are ours.

    >>> round(rewinding_distance([0.1] * 4, 2, share=0.1, gradient=1, smoothness=1), 6)
    0.050820
    """
    _validate.within("share", share, "[0, 1]", "it is m/n")
    for name, bound in (("gradient", gradient), ("smoothness", smoothness)):
        _validate.positive(name, bound, "a bound that holds along both runs")
    distance = 0.0
    for step, rate in enumerate(rates):
        distance *= 1 + rate * (smoothness + decay)
        distance += rate * 2 * gradient * share * (step < begins)
    return distance


@dataclasses.dataclass(frozen=True)
class Rewinding(Options):
    """Options of R2D.

    Attributes:
      rewind_to: point of the training to go on from: a share of it below 1 (the nearest
        stored state), or an epoch; 0 is Retrain with the original's seed.
      earlier: path of the earlier state: a checkpoint of `train --keep-every` or of an
        earlier moment, or parameters of another program, as `import` reads them.
        Default: the states stored beside the original.
      noise: standard deviation of the noise that is added to every parameter at the
        end, as published; 0 adds none.
      gradient_bound: G, largest norm of a sample's gradient in either run. With
        --smoothness and --noise, R2D's certificate is computed, if the original was
        trained with full batches and without momentum, augmentation and BatchNorm.
      smoothness: L, the Lipschitz constant of the mean gradient in either run.
      delta: δ of the certificate.
    """

    rewind_to: NotNegative = 0.5
    earlier: str = ""
    noise: NotNegative = 0.0
    gradient_bound: NotNegative = 0.0
    smoothness: NotNegative = 0.0
    delta: Fraction = 1e-5

    def __post_init__(self):
        super().__post_init__()
        given = [self.gradient_bound > 0, self.smoothness > 0]
        if any(given) and not (all(given) and self.noise > 0):
            raise InputError(
                f"gradient_bound={self.gradient_bound:g}, "
                f"smoothness={self.smoothness:g}, noise={self.noise:g}: a certificate "
                "takes all three; give them, or leave the two bounds out"
            )
        if self.delta == 1:
            raise InputError("delta=1 guarantees nothing; try 1e-5")

    def costs(self, epochs: float) -> dict[str, float]:
        """Return what of a training of so many epochs is left, for the cost."""
        done = self.rewind_to / (1 if self.rewind_to < 1 else epochs)
        return {"left": max(1 - done, 0.0)}


def _rewind(lab: Lab, options: Rewinding) -> Job:
    job = lab.rewound("retain", options.rewind_to, options.earlier)
    if options.noise == 0:
        return job
    if options.gradient_bound > 0:
        proof = _certificate(lab, options, job)
        job = job._replace(details={**job.details, "certificate": proof})
    key = jax.random.fold_in(jax.random.key(lab.seed), 3)
    finish = job.finish or (lambda state: (state.params, state.model_state))

    def noisy(state: Any) -> Variables:
        params, model_state = finish(state)
        part, whole = divided(params)
        wide = optax.tree.cast(part, jnp.float32)
        noise = optax.tree.random_like(key, wide, jax.random.normal)
        moved = optax.tree.add(wide, optax.tree.scale(options.noise, noise))
        return whole(optax.tree.cast_like(moved, part)), model_state

    return job._replace(finish=noisy)


def _certificate(lab: Lab, options: Rewinding, job: Job) -> dict[str, Any]:
    """Return the (ε, δ) statement for the record; refuse where it would not be one."""
    training, ids = lab.training, [lab.ids(part) for part in ("trained", "retain")]
    batch, peak = training.batch_size, training.learning_rate
    measured = "mean and deviation of its inputs from all samples"  # D_f among them
    wrong = {
        measured: not (getattr(training, "mean", ()) and getattr(training, "std", ())),
        f"batch_size={batch}, below the {len(ids[0])} samples": batch < len(ids[0]),
        f"momentum={getattr(training, 'momentum', 'none: Adam')}": getattr(
            training, "momentum", True
        ),
        f"augment={getattr(training, 'augment', None)}": getattr(
            training, "augment", "none"
        )
        != "none",
        "batch statistics": bool(jax.tree.leaves(lab.original[1])),
        "an earlier state of another program": bool(options.earlier),
    }
    if found := [name for name, there in wrong.items() if there]:
        raise InputError(
            f"gradient_bound={options.gradient_bound:g}: the certificate is of "
            "gradient descent by whole batches, and the original has "
            f"{', '.join(found)}; leave the bounds out, or train it by --batch-size "
            f"{len(ids[0])} --momentum 0 --mean 0.5 --std 0.5, without augmentation, "
            "on a network without BatchNorm (mlp, linear)"
        )
    begins, steps = job.details.get("rewound", {}).get("begins", 0), job.steps
    rates = [peak * (1 + math.cos(math.pi * t / steps)) / 2 for t in range(steps)]
    share = 1 - len(ids[1]) / len(ids[0])
    bounds = {"gradient": options.gradient_bound, "smoothness": options.smoothness}
    told = {"share": share, **bounds, "decay": training.weight_decay}
    distance = rewinding_distance(rates, begins, **told)
    if not 0 < distance < 1e150 * options.noise:
        said = "nothing of the original is left, and no noise is needed"
        if distance > 0:
            said = "the two runs may end any distance apart; rewind further"
        raise InputError(
            f"rewind_to={options.rewind_to:g}, distance={distance:g}: {said}; leave "
            "the bounds out"
        )
    said = guarantee_of((distance / options.noise) ** 2 / 2, options.delta)
    proof = {**said._asdict(), "sigma": options.noise, "distance": distance, **told}
    far = " So large an ε says nothing in practice: rewind further." * (
        said.epsilon > LARGE
    )
    proof["says"] = [
        f"certificate: (ε = {said.epsilon:.4g}, δ = {said.delta:g}), of noise σ = "
        f"{options.noise:g} over a distance of {distance:.4g} at most, after "
        f"{begins} of {steps} steps with the forget set.{far}",
        "it says: the law of these parameters is (ε, δ)-close to that of Retrain with "
        "the original's start and the same noise",
        f"it assumes: in both runs no sample's gradient has a norm above "
        f"{options.gradient_bound:g} and the mean gradient's Lipschitz constant is at "
        f"most {options.smoothness:g}, which nobody checked; nobody knows the seed, "
        "which stands in the record; the parameters alone are released, no model or "
        "state before them. It is about the parameters, not about any figure measured "
        "of them",
    ]
    return proof


LARGE = 20  # e^20 times as likely: no protection; our choice


def _check(setting: Any) -> None:
    if setting.trainable:
        raise InputError(
            f"trainable={setting.trainable!r}: rewind restores the whole network; "
            "leave it out"
        )


REWIND = (
    Card.of(_rewind, "R2D", "R2D (rewind)", "arXiv 2409.09778")
    .but(reads=("retain", "training"), cost="left·T·R", kind="training", weighs=False)
    .but(step_reads=("length",), check=_check)
    .but(
        suits="Good if checkpoints of the training were kept (train --keep-every): it "
        "continues from one of them without the forget set. What was memorised before "
        "it stays, so rewind far for samples learned early."
    )
    .tries(rewind_to=(0.25, 0.5, 0.7, 0.8, 0.9, 0.95))
)
