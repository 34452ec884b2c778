"""What BatchNorm statistics of few forget samples cost, by their number.

A small CNN trained on digits, then 30 passes of gradient ascent at rate 0 over a
request drawn at random: nothing but the statistics moves. Prints the accuracy on test
images that is lost, the mean and the worst of six draws. `methods.step.FEWEST` and
`lab.refusals.FEWEST` were chosen by it. Run with
`python tests/benchmarks/bench_statistics.py`.
"""

import jax
import numpy as np
import optax

import jax_unlearn as ju
from jax_unlearn.data import Examples, digits, forget_only, retain_only

SIZES, DRAWS, EPOCHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64), 6, 30


def floats(examples):
    """Return the images as floats in 0..1."""
    return Examples(
        (np.asarray(examples.inputs) / 255).astype(np.float32), examples.labels
    )


def main():
    """Print a line a size."""
    full = digits()
    train, test = floats(full.train), floats(full.test)
    model = ju.from_nnx(
        lambda rngs: ju.zoo.SmallCNN(10, width=8, in_channels=1, rngs=rngs)
    )
    key, ids = jax.random.key(0), np.arange(len(train.labels))
    alg = ju.methods.finetune(model, optax.sgd(0.1, momentum=0.9))
    schedule = retain_only(train, ids, batch_size=64, epochs=8)
    start = alg.init(*model.init(key, train.inputs[:2]))
    trained = ju.run(alg, start, schedule, key)

    def accuracy(state):
        outputs = ju.predict(model, state.params, state.model_state, test.inputs)
        return 100 * np.mean(outputs.argmax(1) == test.labels)

    ascent = ju.methods.assemble(
        model, optax.sgd(0.0), forget=ju.objectives.ascent(model), fewest=0
    )
    begin = ascent.init(trained.params, trained.model_state)
    print(f"accuracy {accuracy(trained):.1f} %; lost, mean and worst of {DRAWS} draws:")
    for size in SIZES:
        lost = []
        for seed in range(DRAWS):
            some = np.random.default_rng(seed).choice(ids, size, replace=False)
            steps = forget_only(train, some, batch_size=64, epochs=EPOCHS)
            lost.append(accuracy(trained) - accuracy(ju.run(ascent, begin, steps, key)))
        print(f"{size:3d} samples: {np.mean(lost):5.1f} {max(lost):5.1f}")


if __name__ == "__main__":
    main()
