"""BatchNorm with ReLU on a CPU: the layer beside other orders of the same sums.

Forward and backward pass together, compiled as the rule of `ju.programs` compiles wide
networks, in turns. What a contestant computes is told by its docstring; all agree to
rounding. Run with `python tests/benchmarks/bench_norm.py`; `bench_steps.py` has its
table from here, and measures steps with `folded` in the layer's place.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from measuring import finish, parser, spread, turns, wait

import jax_unlearn as ju
from jax_unlearn.zoo import layers

EPSILON, KEPT = 1e-5, 0.9  # as `layers.batch_norm`
SHAPES = ((32, 16), (32, 64), (16, 128), (8, 256), (4, 512))  # side, channels
PIXELS = 8  # a row of `rows`


class Folded(nnx.BatchNorm):
    """BatchNorm whose mean, variance, scale and bias are one factor and one term."""

    def __call__(self, x, *, use_running_average):
        """Return the images, normalised."""
        mean, var = self.mean[...], self.var[...]
        if not use_running_average:
            mean, var = moments(x)
            self.mean[...] = KEPT * self.mean[...] + (1 - KEPT) * mean
            self.var[...] = KEPT * self.var[...] + (1 - KEPT) * var
        return normalised(x, mean, var, self.scale[...], self.bias[...])


def folded(features, *, rngs):
    """Return what may stand in the place of `layers.batch_norm`."""
    return Folded(features, momentum=KEPT, epsilon=EPSILON, rngs=rngs)


def moments(x, total=lambda x: jnp.sum(x, (0, 1, 2))):
    """Return mean and variance of the channels, by sums of one pass."""
    count = x.size // x.shape[-1]
    mean = total(x) / count
    return mean, jnp.maximum(0.0, total(x * x) / count - mean**2)


def normalised(x, mean, var, scale, bias):
    """Return the images by one product and one sum."""
    factor = jax.lax.rsqrt(var + EPSILON) * scale
    return x * factor + (bias - mean * factor)


def rows(x):
    """Return the sums of the channels, first over rows of several pixels."""
    wide = x.reshape(-1, PIXELS * x.shape[-1]).sum(0)
    return wide.reshape(PIXELS, -1).sum(0)


def images(x):
    """Return the sums of the channels, first over the pixels of an image."""
    return x.reshape(x.shape[0], -1, x.shape[-1]).sum(1).sum(0)


def ones(x):
    """Return the sums of the channels, as a product with ones."""
    flat = x.reshape(-1, x.shape[-1])
    return (jnp.ones((1, flat.shape[0])) @ flat)[0]


def by(total):
    """Return BatchNorm with ReLU, folded, of these sums."""

    def forward(x, scale, bias):
        return nnx.relu(normalised(x, *moments(x, total), scale, bias))

    return forward


def layer(x, scale, bias):
    """Return what the networks of `ju.zoo` compute."""
    made = layers.batch_norm(x.shape[-1], rngs=nnx.Rngs(0))
    made.scale[...], made.bias[...] = scale, bias
    return nnx.relu(made(x, use_running_average=False))


@jax.custom_vjp
def closed(x, scale, bias):
    """Return BatchNorm with ReLU, its gradient by the formulas: not twice."""
    return closed_forward(x, scale, bias)[0]


def closed_forward(x, scale, bias):
    """Return the value, and what the gradient needs."""
    mean, var = moments(x)
    y = nnx.relu(normalised(x, mean, var, scale, bias))
    return y, (x, mean, var, scale, bias)


def closed_backward(kept, cotangent):
    """Return the gradients of images, scale and bias."""
    x, mean, var, scale, bias = kept
    count, inverse = x.size // x.shape[-1], jax.lax.rsqrt(var + EPSILON)
    g = jnp.where(normalised(x, mean, var, scale, bias) > 0, cotangent, 0.0)
    d_bias, product = jnp.sum(g, (0, 1, 2)), jnp.sum(g * x, (0, 1, 2))
    d_scale = (product - mean * d_bias) * inverse
    factor = inverse * scale
    slope = -factor * inverse * d_scale / count
    term = -factor * d_bias / count - slope * mean
    return g * factor + x * slope + term, d_scale, d_bias


closed.defvjp(closed_forward, closed_backward)

CONTESTANTS = {
    "layer": layer,
    "folded": by(lambda x: jnp.sum(x, (0, 1, 2))),
    "folded, by rows": by(rows),
    "folded, by images": by(images),
    "folded, by ones": by(ones),
    "folded, own gradient": closed,
}


def passes(forward, x, cotangent):
    """Return a call of both passes, and what it returns."""
    channels = x.shape[-1]

    def both(x, scale, bias, cotangent):
        y, pullback = jax.vjp(forward, x, scale, bias)
        return y, pullback(cotangent)

    compiled = ju.programs.jit(both)
    arrays = x, jnp.ones(channels), jnp.zeros(channels), cotangent

    def call():
        with ju.programs.using("reductions"):
            return wait(compiled(*arrays))

    return call


def norms(*, batch=64, shapes=SHAPES, repeats=9, seconds=4.0):
    """Return by shape each contestant's seconds and its distance from the layer."""
    found = []
    for side, channels in shapes:
        rng = np.random.default_rng(0)
        size = batch, side, side, channels
        x, cotangent = (jnp.asarray(rng.normal(size=size), jnp.float32) for _ in "xy")
        calls = {n: passes(f, x, cotangent) for n, f in CONTESTANTS.items()}
        given = {name: jax.tree.leaves(call()) for name, call in calls.items()}
        apart = {name: distance(own, given["layer"]) for name, own in given.items()}
        times = turns(calls, repeats=repeats, seconds=seconds)
        median = {name: spread(own) for name, own in times.items()}
        one = {"side": side, "channels": channels, "seconds": median, "apart": apart}
        found.append(one)
    return found


def distance(found, expected):
    """Return the largest distance of an array, relative to its norm."""
    pairs = zip(found, expected, strict=True)
    norm = jnp.linalg.norm
    return max(float(norm(jnp.ravel(a - b)) / norm(jnp.ravel(b))) for a, b in pairs)


if __name__ == "__main__":
    asked = parser(__doc__).parse_args()
    quick = {"batch": 4, "shapes": ((4, 8),), "repeats": 2} if asked.quick else {}
    finish({"benchmark": "norm", "norms": norms(**quick)}, asked.out)
