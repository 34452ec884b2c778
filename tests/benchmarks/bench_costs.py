"""What weights and look-ahead cost: each relative to a step of plain random labels.

LoReUn dynamic and static; FaLW with its exact, every-4th-step, streaming and anchored
moments; LTU of first and second order. A ResNet-8 on 32x32 images, the unseen set as
large as told. Contestants take turns. Run with
`python tests/benchmarks/bench_costs.py`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from measuring import finish, parser, relative, resnet8, spread, turns, wait

import jax_unlearn as ju

CLASSES, BASE = 10, "RL"


def weightings(forget, unseen_stats):
    """Return the weightings by name, and which reference each reads."""
    counts = jnp.full(CLASSES, forget / CLASSES, jnp.float32)
    table = jnp.linspace(0.1, 3.0, forget, dtype=jnp.float32)
    weights = ju.weights

    def falw(estimator):
        return weights.falw(counts, tau=0.15, estimator=estimator)

    return {
        BASE: (weights.uniform(), None),
        "RL + LoReUn": (weights.loreun(temperature=1.0), None),
        "RL + LoReUn (static)": (
            weights.loreun_static(table, temperature=1.0),
            None,
        ),
        "RL + FaLW (exact)": (falw(weights.exact()), "whole"),
        "RL + FaLW (every 4)": (falw(weights.every(4)), "whole"),
        "RL + FaLW (streaming)": (falw(weights.streaming()), "part"),
        "RL + FaLW (anchored)": (falw(weights.anchored(unseen_stats)), None),
    }


def measure(*, batch=64, unseen=512, width=16, steps=4, repeats=7):
    """Return seconds a step of all contestants, and relative to plain RL."""
    rng = np.random.default_rng(0)
    half = batch // 2

    def part(size):
        images = rng.normal(size=(size, 32, 32, 3)).astype(np.float32)
        labels = (np.arange(size) % CLASSES).astype(np.int32)
        index = np.arange(size, dtype=np.int32)
        return jax.device_put(ju.Batch(images, labels, index))

    forget, retain, whole = part(half), part(half), part(unseen)
    references = {"whole": whole, "part": part(half), None: None}
    model = resnet8(width)
    start = jax.jit(model.init)(jax.random.key(0), forget.inputs[:2])
    key = jax.random.key(1)
    stats = ju.weights.ClassStats(
        jnp.full(CLASSES, 0.4), jnp.full(CLASSES, 0.2), jnp.full(CLASSES, 50, jnp.int32)
    )

    def runs(alg, one):
        def call():
            wait(ju.run(alg, alg.init(*start), [one] * steps, key))

        return call

    contestants = {}
    for name, (weighting, reference) in weightings(half, stats).items():
        alg = ju.methods.random_label(
            model, optax.sgd(0.01), num_classes=CLASSES, weighting=weighting
        )
        one = ju.UnlearnBatch(forget, retain, references[reference])
        contestants[name] = runs(alg, one)
    contestants |= looking_ahead(model, start, forget, retain, whole, runs)
    for call in contestants.values():
        call()
    times = turns(contestants, repeats=repeats)
    return {
        "benchmark": "costs",
        "batch": batch,
        "unseen": unseen,
        "width": width,
        "steps_a_turn": steps,
        "seconds_a_step": {
            name: spread([t / steps for t in own]) for name, own in times.items()
        },
        "relative_to_rl": relative(times, BASE),
    }


def looking_ahead(model, start, forget, retain, unseen, runs):
    """Return LTU of both orders, with two membership models trained here."""
    attacks = ju.membership.default_attacks()[:2]

    def observed(batch):
        logits, _ = jax.jit(lambda x: model.apply(*start, x, train=False))(batch.inputs)
        return ju.membership.Observed(logits, batch.labels)

    params, _ = ju.membership.train_attacks(
        attacks, observed(retain), observed(unseen), jax.random.key(2)
    )
    found = {}
    for name, options in {
        "LTU, first order": {"first_order": True},
        "LTU, second order": {},
        "LTU, second order, remat": {"remat": True},
    }.items():
        alg = ju.methods.ltu(
            model,
            optax.sgd(0.01),
            queries=2,  # halves of the retain batch
            attacks=attacks,
            attack_params=params,
            inner=optax.sgd(0.01),
            num_classes=CLASSES,
            **options,
        )
        found[name] = runs(alg, ju.UnlearnBatch(forget, retain))
    return found


def main():
    made = parser(__doc__)
    made.add_argument("--batch", type=int, default=64, help="samples, both halves")
    made.add_argument("--unseen", type=int, default=512)
    made.add_argument("--width", type=int, default=16)
    made.add_argument("--steps", type=int, default=4, help="steps a turn")
    made.add_argument("--repeats", type=int, default=7)
    options = vars(made.parse_args())
    out, quick = options.pop("out"), options.pop("quick")
    if quick:
        options = {"batch": 24, "unseen": 40, "width": 4, "steps": 1, "repeats": 2}
    finish(measure(**options), out)


if __name__ == "__main__":
    main()
