"""Two optimizers in one, and what must be known of an optimizer that a user gives.

Which parameters it moves at all, whether it has just left out a step, and whether it
adds up the gradients of several steps.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.extend import core

from jax_unlearn.errors import InputError
from jax_unlearn.harmonize import Separate
from jax_unlearn.types import Array, Params, PyTree

__all__ = ["DualState", "accumulates", "applied", "dual", "movable", "skipped"]

_KINDS = (optax.ApplyIfFiniteState, optax.MultiStepsState, optax.ZeroNansState)


class DualState(NamedTuple):
    """State of `dual`: that of each optimizer."""

    forget: PyTree
    retain: PyTree


def applied(params: Params, updates: PyTree) -> Params:
    """Return the updated parameters, each in its own dtype.

    As `optax.apply_updates`, but for updates of another dtype also where jax promotes
    strictly: of float32 for weights of bfloat16, the sum is taken in float32.

    >>> applied(jnp.ones(1, jnp.bfloat16), jnp.full(1, -0.25, jnp.float32))
    Array([0.75], dtype=bfloat16)
    """

    def moved(param: Any, update: Any) -> Any:
        if param is None:
            return None
        if param.dtype == update.dtype:
            return optax.apply_updates(param, update)
        both = param.astype(jnp.float32) + update.astype(jnp.float32)
        return both.astype(param.dtype)

    return jax.tree.map(moved, params, updates, is_leaf=lambda leaf: leaf is None)


def dual(
    forget: optax.GradientTransformation, retain: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
    """Give forget and retain gradients an optimizer each (DualOptim).

    The update is u_f(g_f) + u_r(g_r), each with moments, decay and rate of its own, so
    that the moments of one never mix with the other's. Where a step has one of the
    gradients only, as in phases that alternate, the other optimizer stays as it is. For
    any method with `harmonizer=ju.harmonize.separate`, which hands both over. An
    optimizer is told the other arguments of `update`, such as `value`.

    Published: forget AdamW of decay 0.05, retain SGD of lr 0.01, momentum 0.9 and decay
    5e-4, in phases that alternate, over SalUn, SFRon and SCRUB.

    Raises:
      InputError: in the update, of gradients that were joined.

    Reference: arXiv 2504.15827.

    >>> from jax_unlearn.harmonize import Separate
    >>> optimizer = dual(optax.sgd(1.0), optax.sgd(0.1, momentum=0.9))
    >>> state = optimizer.init(jnp.zeros(1))
    >>> both = Separate(jnp.array([1.0]), jnp.array([2.0]))
    >>> updates, state = optimizer.update(both, state)
    >>> print(updates, optimizer.update(Separate(jnp.ones(1), None), state)[0])
    [-1.2] [-1.]
    """
    parts = {"forget": forget, "retain": retain}
    own = {name: optax.with_extra_args_support(o) for name, o in parts.items()}

    def init(params):
        return DualState(forget.init(params), retain.init(params))

    def update(updates, state, params=None, **extra):
        if not isinstance(updates, Separate):
            raise InputError(
                "optimizers.dual reads two gradients and got one; give the method "
                "harmonizer=ju.harmonize.separate"
            )
        moves, states = [], state._asdict()
        for name, optimizer in own.items():
            if (grads := getattr(updates, name)) is None:
                continue
            told = {**extra, "grad": grads} if "grad" in extra else extra
            move, states[name] = optimizer.update(grads, states[name], params, **told)
            moves.append(move)
        return jax.tree.map(lambda *each: sum(each), *moves), DualState(**states)

    return optax.GradientTransformationExtraArgs(init, update)


def movable(optimizer: optax.GradientTransformation, params: Params) -> PyTree:
    """Return which parameters the optimizer moves by their gradient, bools like them.

    Not those whose update does not depend on their own gradient, whatever its value:
    `optax.multi_transform` and `optax.masked` with `optax.set_to_zero`. Read off the
    traced update, nothing is computed; what only chooses between updates (a step left
    out) does not count.

    >>> frozen = optax.masked(optax.set_to_zero(), {"body": True, "head": False})
    >>> params = {"body": jnp.zeros(2), "head": jnp.zeros(2)}
    >>> movable(optax.chain(optax.adam(0.1), frozen), params)
    {'body': False, 'head': True}
    """
    form = jax.tree.map(lambda p: jax.ShapeDtypeStruct(jnp.shape(p), p.dtype), params)
    update = optax.with_extra_args_support(optimizer).update

    def apply(grads, state, params):
        def value_fn(params):
            return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(params))

        value = jnp.float32(0)
        told = {"value": value, "grad": grads, "value_fn": value_fn}
        with jax.numpy_dtype_promotion("standard"):
            return update(grads, state, params, **told)[0]

    state = jax.eval_shape(optimizer.init, form)
    closed, moves = jax.make_jaxpr(apply, return_shape=True)(form, state, form)
    count = len(jax.tree.leaves(form))
    own = [frozenset({i}) if i < count else _NONE for i in range(len(closed.in_avals))]
    for choices in (False, True):  # some move by the gradient's sign, by choice alone
        reached = _flow(closed.jaxpr, own, choices)
        leaves = [i in sources for i, sources in enumerate(reached)]
        if any(leaves):
            break
    return jax.tree.unflatten(jax.tree.structure(moves), leaves)


def accumulates(opt_state: PyTree) -> bool:
    """Return whether a state holds `optax.MultiSteps`, which adds up gradients.

    >>> accumulates(optax.MultiSteps(optax.sgd(0.1), 2).init(jnp.zeros(1)))
    True
    """
    return any(isinstance(s, optax.MultiStepsState) for s in _states(opt_state))


def skipped(opt_state: PyTree) -> Array | None:
    """Return whether the last update left out what was not finite, `bool[]`.

    By `optax.apply_if_finite`, `optax.zero_nans`, or `optax.MultiSteps` with
    `optax.skip_not_finite`; None of an optimizer that never does.

    >>> optimizer = optax.apply_if_finite(optax.sgd(0.1), 3)
    >>> state = optimizer.init(jnp.zeros(1))
    >>> print(skipped(optimizer.update(jnp.array([jnp.nan]), state)[1]))
    True
    """
    signs = []
    for state in _states(opt_state):
        if isinstance(state, optax.ApplyIfFiniteState):
            signs.append(~jnp.asarray(state.last_finite))
        elif isinstance(state, optax.ZeroNansState):
            signs += jax.tree.leaves(state.found_nan)
        elif isinstance(state.skip_state, Mapping):
            signs.append(state.skip_state.get("should_skip", jnp.bool_(False)))
    return jnp.any(jnp.stack(signs), axis=0) if signs else None


def _states(opt_state: PyTree) -> list[Any]:
    """Return the states of the transformations above, outer ones first."""
    found = []
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, _KINDS))
    for state in leaves:
        if isinstance(state, _KINDS):
            inner = getattr(state, "inner_state", getattr(state, "inner_opt_state", ()))
            found += [state, *_states(inner)]
    return found


_NONE: frozenset[int] = frozenset()
_CHOICES = {"select_n": 1, "cond": 1}  # their first operand only chooses


def _flow(
    jaxpr: core.Jaxpr, sources: list[frozenset[int]], choices: bool
) -> list[frozenset[int]]:
    """Return which inputs each output is computed from, or chosen by."""
    known: dict[Any, frozenset[int]] = dict(zip(jaxpr.invars, sources, strict=True))

    def of(atom: Any) -> frozenset[int]:
        return _NONE if isinstance(atom, core.Literal) else known.get(atom, _NONE)

    for eqn in jaxpr.eqns:
        skip = _CHOICES.get(eqn.primitive.name, 0)
        given = [of(atom) for atom in eqn.invars[skip:]]
        chosen = _NONE.union(*map(of, eqn.invars[:skip])) if choices else _NONE
        inner = [
            body
            for value in eqn.params.values()
            for body in (value if isinstance(value, tuple | list) else [value])
            if isinstance(body, core.Jaxpr | core.ClosedJaxpr)
        ]
        bodies: list[Any] = [getattr(body, "jaxpr", body) for body in inner]
        whole = [
            body
            for body in bodies
            if len(body.invars) == len(given) and len(body.outvars) == len(eqn.outvars)
        ]
        if whole and len(whole) == len(bodies) and eqn.primitive.name != "scan":
            each = [_flow(body, given, choices) for body in whole]
            outs = [chosen.union(*parts) for parts in zip(*each, strict=True)]
        else:
            outs = [chosen.union(*given)] * len(eqn.outvars)
        known.update(zip(eqn.outvars, outs, strict=True))
    return [of(atom) for atom in jaxpr.outvars]
