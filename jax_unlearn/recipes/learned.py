"""LoReUn's open question: are the temperature and the weights better learned?

What K steps of random labels with LoReUn weights make is a differentiable function of
the temperature, and of a weight for every forget sample; both are learned by descending

    J = mean over forget (p - t)²  +  mean over unseen max(q - p, 0)²

through the last steps of the run. p is the probability of the true class after it; t,
for a forget sample, that of an unseen sample of the same class and quantile under the
original model; q, for an unseen sample, its own under the original model. Against it:
the best, by J, of as many temperatures of a grid as the same number of passes pays for.
All run at the learning rate at which plain random labels have the smallest J. Retrain
only judges.
"""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_unlearn import losses, objectives, programs, weights
from jax_unlearn.data import Dataset, as_floats
from jax_unlearn.lab import Bench, Plan, Request
from jax_unlearn.lab.job import Trained, probabilities
from jax_unlearn.recipes.recipe import Asked, Recipe, seed_by_seed, spreads
from jax_unlearn.recipes.search import Yardstick
from jax_unlearn.recipes.tables import CIFAR10, FASHION, beside, look
from jax_unlearn.types import Array, Model

__all__ = ["GRID", "LEARNED_CIFAR10", "LEARNED_FASHION", "OUTER", "PASSES", "RATES"]
__all__ += ["Carry", "Choice", "Learner", "Problem", "Weigh", "distance", "free"]
__all__ += ["learned_study", "loreun", "problem_of", "step_of", "uniform"]

STEPS, THROUGH = 60, 30  # of a run; the last ones, differentiated
BATCH = 64  # of each of the two sets
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
_MOMENTUM = optax.trace(0.9)
OUTER = 8  # updates of what is learned
OUTER_RATE = 0.5  # of Adam, on the logarithms: enough to go beyond the grid
PASSES = 4  # gradients that one differentiated step costs, counted as one plain step
GRID = tuple(np.geomspace(0.05, 20.0, OUTER * (1 + PASSES) // 2).round(3).tolist())
"""Temperatures tried: (STEPS - THROUGH) + PASSES · THROUGH steps an update, for OUTER
updates, pay for OUTER · (1 + PASSES) / 2 runs of STEPS steps."""


class Problem(NamedTuple):
    """Arrays of one request."""

    images: Array
    labels: Array
    relabelled: Array  # a random other class of each
    targets: Array  # t, see above
    kept_images: Array  # retain batches, `[T, B, ...]`
    kept_labels: Array
    order: Array  # positions of the forget samples of each step, `[T, B]`
    unseen_images: Array
    unseen_labels: Array
    confidence: Array  # q, see above
    rate: Array


class Choice(NamedTuple):
    """What is learned."""

    log_temperature: Array  # τ in standard deviations of a batch's losses
    log_weights: Array  # of a factor for every forget sample, `[F]`


Weigh = Callable[[Array, Array, Choice], Array]
"""`(losses of a batch, positions of its samples, choice) -> weights of mean one`."""


def uniform(found: Array, _chosen: Array, _choice: Choice) -> Array:
    """Weight all alike."""
    return jnp.ones_like(found)


def loreun(found: Array, _chosen: Array, choice: Choice) -> Array:
    """Weight by the loss."""
    tau = jnp.exp(choice.log_temperature)
    return weights.softmin_weights(found, temperature=tau, relative=True)


def free(found: Array, chosen: Array, choice: Choice) -> Array:
    """Weight every sample by a number of its own."""
    return len(found) * jax.nn.softmax(choice.log_weights[chosen])


class Carry(NamedTuple):
    """What a step hands to the next."""

    params: Any
    state: Any
    memory: Any  # of the optimizer


def step_of(model: Model, weigh: Weigh) -> Callable[..., Carry]:
    """Return a step of random labels, `(carry, t, problem, choice) -> carry`."""

    def step(carry: Carry, t: Array, problem: Problem, choice: Choice) -> Carry:
        chosen = problem.order[t]
        images = jnp.concatenate([problem.images[chosen], problem.kept_images[t]])
        labels = problem.labels[chosen], problem.relabelled[chosen]
        split = len(chosen)

        def loss(params, given):
            logits, new = model.apply(params, carry.state, images, train=True)
            wrong = losses.cross_entropy(logits[:split], labels[1])
            right = losses.cross_entropy(logits[split:], problem.kept_labels[t])
            known = losses.cross_entropy(logits[:split], labels[0])
            return jnp.mean(given * wrong) + jnp.mean(right), (new, known)

        # the direction takes the weights for constants, as LoReUn does; what is learned
        # sees how they came about
        known = loss(carry.params, jnp.zeros(split))[1][1]
        given = weigh(known, chosen, choice)
        gradient, (state, _) = jax.grad(loss, has_aux=True)(carry.params, given)
        moved, memory = _MOMENTUM.update(gradient, carry.memory, carry.params)
        change = jax.tree.map(lambda leaf: -problem.rate * leaf, moved)
        return Carry(optax.apply_updates(carry.params, change), state, memory)

    return step


def distance(model: Model, params: Any, state: Any, problem: Problem) -> Array:
    """Return J of a model."""

    def true(images: Array, labels: Array) -> Array:
        logits, _ = model.apply(params, state, images, train=False)
        return losses.true_class_probability(logits, labels)

    forgot = true(problem.images, problem.labels) - problem.targets
    unseen = true(problem.unseen_images, problem.unseen_labels)
    lost = jnp.maximum(problem.confidence - unseen, 0)
    return jnp.mean(jnp.square(forgot)) + jnp.mean(jnp.square(lost))


def problem_of(
    model: Model, original: Trained, dataset: Dataset, request: Request, *, seed: int
) -> Problem:
    """Return the arrays of a request."""
    rng = np.random.default_rng(seed)
    labels = dataset.train.labels
    forget, unseen = request.forget, request.unseen
    known, new = (
        probabilities(model, original, dataset.train.inputs[ids])
        for ids in (forget, unseen)
    )
    true = known[np.arange(len(forget)), labels[forget]]
    targets = objectives.transport_targets(true, labels[forget], new, labels[unseen])
    drawn = rng.integers(1, dataset.num_classes, len(forget))
    kept = rng.choice(request.retain, (STEPS, BATCH))
    size = min(BATCH, len(forget))
    order = np.stack([rng.permutation(len(forget))[:size] for _ in range(STEPS)])

    def images(ids: np.ndarray) -> Array:
        return jnp.asarray(as_floats(dataset.train.inputs[ids]))

    return Problem(
        images(forget),
        jnp.asarray(labels[forget]),
        jnp.asarray((labels[forget] + drawn) % dataset.num_classes),
        jnp.asarray(targets[np.arange(len(forget)), labels[forget]]),
        images(kept),
        jnp.asarray(labels[kept]),
        jnp.asarray(order),
        images(unseen),
        jnp.asarray(labels[unseen]),
        jnp.asarray(new[np.arange(len(unseen)), labels[unseen]], jnp.float32),
        jnp.float32(RATES[0]),
    )


class Learner:
    """Programs of the study for one model, compiled once for all seeds."""

    def __init__(self, model: Model):
        def pull(step, carry, t, problem, choice, cotangent):
            _, back = jax.vjp(lambda c, k: step(c, t, problem, k), carry, choice)
            return back(cotangent)

        def objective(carry: Carry, problem: Problem) -> Array:
            return distance(model, carry.params, carry.state, problem)

        # steps and pullbacks apart: convolutions in a compiled loop are slow on a CPU
        self._steps, self._pulls = {}, {}
        for weigh in (uniform, loreun, free):
            step = step_of(model, weigh)
            self._steps[weigh] = programs.jit(step)
            self._pulls[weigh] = programs.jit(functools.partial(pull, step))
        self._distance = programs.jit(functools.partial(distance, model))
        self._slope = programs.jit(jax.value_and_grad(objective))

    def run(
        self, weigh: Weigh, original: Trained, problem: Problem, choice: Choice
    ) -> tuple[Trained, float]:
        """Return the unlearned model and its J."""
        last = self._carries(weigh, original, problem, choice)[-1]
        made = Trained(last.params, last.state, {})
        return made, self.objective(made, problem)

    def objective(self, made: Trained, problem: Problem) -> float:
        """Return J of a model."""
        return float(self._distance(made.params, made.model_state, problem))

    def gradient(
        self, weigh: Weigh, original: Trained, problem: Problem, choice: Choice
    ) -> tuple[float, Choice]:
        """Return J, and its derivative through the last steps."""
        carries = self._carries(weigh, original, problem, choice)
        found, cotangent = self._slope(carries[-1], problem)
        total = jax.tree.map(jnp.zeros_like, choice)
        for t in reversed(range(len(problem.order) - THROUGH, len(problem.order))):
            at = carries[t], jnp.int32(t), problem, choice, cotangent
            cotangent, part = self._pulls[weigh](*at)
            total = jax.tree.map(jnp.add, total, part)
        return float(found), total

    def learn(
        self, weigh: Weigh, original: Trained, problem: Problem, choice: Choice
    ) -> tuple[Choice, list[float]]:
        """Descend J by Adam; return the best choice met, and J by update."""
        optimizer = optax.adam(OUTER_RATE, eps_root=1e-12)
        memory = optimizer.init(choice)
        path, best = [], choice
        for _ in range(OUTER):
            found, slope = self.gradient(weigh, original, problem, choice)
            path.append(found)
            if found == min(path):
                best = choice
            with jax.numpy_dtype_promotion("standard"):  # Adam counts in integers
                change, memory = optimizer.update(slope, memory, choice)
            choice = cast(Choice, optax.apply_updates(choice, change))
        return best, path

    def _carries(
        self, weigh: Weigh, original: Trained, problem: Problem, choice: Choice
    ) -> list[Carry]:
        """Return what was carried before each step, and after the last."""
        params, state = original.params, original.model_state
        carries = [Carry(params, state, _MOMENTUM.init(params))]
        for t in range(len(problem.order)):
            at = carries[-1], jnp.int32(t), problem, choice
            carries.append(self._steps[weigh](*at))
        return carries


def learned_study(
    plan: Plan, dataset: Dataset, folder: Path, *, say: Callable[[str], None]
) -> dict[str, Any]:
    """Learn temperature and weights for every seed; write `learned.json` after each."""
    bench = Bench(plan, dataset, folder=folder / "checkpoints")
    learner = Learner(bench.subject.model)

    def one(seed: int) -> dict[str, dict[str, float]]:
        rows = _one_seed(Yardstick(bench, seed), learner)
        for label, row in rows.items():
            say(f"seed {seed}, {label}: {row}")
        return rows

    told = {"steps": STEPS, "through": THROUGH, "grid": list(GRID), "updates": OUTER}
    told |= {"learning_rates": list(RATES)}
    path = folder / "learned.json"
    return seed_by_seed(plan, path, one, lambda found: {**told, "rows": spreads(found)})


def _one_seed(case: Yardstick, learner: Learner) -> dict[str, dict[str, float]]:
    """Return the rows of a seed."""
    original, dataset = case.original, case.bench.dataset
    given = case.bench.subject.model, original, dataset, case.request
    problem = problem_of(*given, seed=case.seed)
    zeros = jnp.zeros(len(case.request.forget), jnp.float32)
    at_one = Choice(jnp.float32(0), zeros)
    rated = [problem._replace(rate=jnp.float32(rate)) for rate in RATES]
    problem = min(rated, key=lambda one: learner.run(uniform, original, one, at_one)[1])

    def row(weigh: Weigh, choice: Choice, seconds: float) -> dict[str, float]:
        made, objective = learner.run(weigh, original, problem, choice)
        return {
            **case.distances(made),
            "objective": objective,
            "temperature": float(jnp.exp(choice.log_temperature)),
            "learning_rate": float(problem.rate),
            "seconds": seconds,
        }

    nothing = {"objective": learner.objective(original, problem)}
    found = {
        "Original": case.distances(original) | nothing,
        "RL": row(uniform, at_one, 0.0),
        "LoReUn, τ 1": row(loreun, at_one, 0.0),
    }
    start = time.perf_counter()
    tried = []
    for tau in GRID:
        choice = at_one._replace(log_temperature=jnp.log(jnp.float32(tau)))
        tried.append((learner.run(loreun, original, problem, choice)[1], choice))
    best = min(tried, key=lambda pair: pair[0])[1]
    found["LoReUn, τ of the grid"] = row(loreun, best, time.perf_counter() - start)
    for label, weigh in (("LoReUn, τ learned", loreun), ("weights learned", free)):
        start = time.perf_counter()
        choice, path = learner.learn(weigh, original, problem, at_one)
        found[label] = row(weigh, choice, time.perf_counter() - start)
        found[label] |= {"before": path[0], "after": min(path)}
    return found


def _run(recipe: Recipe, asked: Asked, dataset: Dataset, folder: Path) -> None:
    plan, part = beside(recipe, asked, folder)
    learned_study(plan, dataset, part, say=asked.screen.say)
    asked.screen.say(f"results: {part / 'learned.json'}")


LEARNED_FASHION = look("learned-fashion", FASHION, _run)
LEARNED_CIFAR10 = look("learned-cifar10", CIFAR10, _run)
