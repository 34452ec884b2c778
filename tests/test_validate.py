"""The rules for what a user chose: what each refuses, and that tracers pass."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_unlearn import _validate
from jax_unlearn.errors import InputError

NAN, INF = float("nan"), float("inf")
RULES = {
    "positive": (_validate.positive, (0.1, 3, np.float32(1)), (0, -1, NAN, INF)),
    "not_negative": (_validate.not_negative, (0, 2.5), (-1e-9, NAN, INF, np.int64(-1))),
    "fraction": (_validate.fraction, (1e-9, 1), (0, 1.1, NAN)),
    "share": (_validate.share, (0, 0.999), (-0.1, 1, NAN)),
    "at_least": (lambda n, v: _validate.at_least(n, v, 2), (2, 2.5, INF), (1, NAN)),
}
for text, taken, refused in (
    ("(0, 1)", (0.5,), (0, 1)),
    ("[0, 1]", (0, 1), (-0.1, 1.1, NAN)),
    ("[0.5, 1)", (0.5,), (0.4, 1)),
):
    RULES[text] = functools.partial(_validate.within, interval=text), taken, refused


@pytest.mark.parametrize("name", RULES)
def test_numbers(name):
    rule, taken, refused = RULES[name]
    for value in taken:
        rule("rate", value)
    for value in refused:
        with pytest.raises(InputError, match=f"^rate={value} must "):
            rule("rate", value)


@pytest.mark.parametrize("name", RULES)
def test_tracers_and_arrays_pass(name):
    rule = RULES[name][0]

    @jax.jit
    def checked(value):
        rule("rate", value)
        return value

    assert checked(jnp.float32(-5)) == -5
    rule("rate", jnp.float32(-5))


def test_the_remedy_ends_the_line():
    with pytest.raises(InputError, match=r"^rate=0 must be at least 1; try 2$"):
        _validate.at_least("rate", 0, 1, "try 2")
    with pytest.raises(InputError, match=r"^rate=0 must be at least 1$"):
        _validate.at_least("rate", 0, 1)


def test_names():
    _validate.choice("mode", "a", "a", "b", "c")
    with pytest.raises(InputError, match=r"^mode='d': choose 'a', 'b' or 'c'$"):
        _validate.choice("mode", "d", "a", "b", "c")
    _validate.one_of("mode", "a", {"a", "b"})
    with pytest.raises(InputError, match="^unknown mode 'mergd'; did you mean 'merg"):
        _validate.one_of("mode", "mergd", ["merged", "zipped"])


def test_trees_of_the_same_shapes():
    params = {"w": jnp.ones((2, 1)), "b": jnp.ones(2)}
    _validate.same_shapes("it", {"w": np.ones((2, 1)), "b": jnp.zeros(2)}, params, "")
    for other in ({"w": jnp.ones((2, 1))}, {"w": jnp.ones(2), "b": jnp.ones(2)}):
        with pytest.raises(InputError, match="^it and the parameters .*; do this$"):
            _validate.same_shapes("it", other, params, "do this")
