"""Compile options: one place decides how every program that runs a network is compiled.

On CPUs, jaxlib 0.10 hands convolutions to its YNN library, whose gradients of wide
convolutions are slow and whose reductions are fast; `REDUCTIONS` keeps the latter
alone. What is left slow then is the gradients of kernels: wide convolutions of `ju.zoo`
are `in_parts`, unless models run side by side (`vmap`) or on several devices. A rule on
the sizes of the convolutions chooses both: it looks at the program and at nothing else,
so that a run resumed or repeated is compiled as before, to the same bits. (On one core
XLA adds up in another order than on several: there the bits differ, and after a
training the models.) Everything else is left to XLA, as is all on accelerators, and
where this jaxlib does not know the option.

The environment variable JAX_UNLEARN_COMPILE, or `using` in Python, chooses otherwise:
"xla" leaves every program to XLA, "reductions" takes the option for all and leaves all
convolutions to XLA.
"""

import contextvars
import functools
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.extend import core

from jax_unlearn.errors import InputError, unknown_name

__all__ = ["CHOICES", "LEAST", "REDUCTIONS", "VARIABLE", "Program", "choice"]
__all__ += ["in_force", "in_parts", "jit", "largest_convolution", "parts", "pieces"]
__all__ += ["using"]

VARIABLE = "JAX_UNLEARN_COMPILE"
CHOICES = ("rule", "xla", "reductions")

REDUCTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}
"""Compile options for CPUs: YNN for reductions alone."""

LEAST = 2**18
"""Products a sample from which a convolution is faster by `REDUCTIONS`.

By `tests/benchmarks/bench_compile.py`: below it (8 channels at 14 x 14) both are equal
to a few percent; at 16 channels and 14 x 14 the option gains a tenth or more.
"""

MEMORY = 256  # programs of a function whose choices are remembered

_chosen: contextvars.ContextVar[str | None] = contextvars.ContextVar(
    "chosen", default=None
)
_in_parts = contextvars.ContextVar("in_parts", default=False)
_outside = core.get_opaque_trace_state(convention="flax")  # of no transformation


def choice() -> str:
    """Return what decides the compile options: "rule", "xla" or "reductions".

    Raises:
      InputError: JAX_UNLEARN_COMPILE is none of them.

    >>> with using("xla"):
    ...     choice()
    'xla'
    """
    found = _chosen.get() or os.environ.get(VARIABLE) or CHOICES[0]
    if found not in CHOICES:
        raise InputError(
            f"{VARIABLE}={found!r} in the environment: set it to one of "
            f"{', '.join(CHOICES)}"
        )
    return found


@contextmanager
def using(name: str) -> Iterator[None]:
    """Choose the compile options of the programs that are called inside.

    Raises:
      InputError: a name other than "rule", "xla" and "reductions", see the module.

    Source: our choice.

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> with ju.programs.using("xla"):
    ...     ju.predict(model, np.float32(2), (), np.ones(2, np.float32))
    array([2., 2.], dtype=float32)
    """
    if name not in CHOICES:
        raise unknown_name("compile options", name, CHOICES)
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)


def in_parts() -> bool:
    """Return whether wide convolutions traced now are to be `ju.zoo.in_parts`.

    >>> with parts(True):
    ...     in_parts()
    True
    """
    return _in_parts.get()


@contextmanager
def parts(allowed: bool) -> Iterator[None]:
    """Say whether wide convolutions traced inside may be in parts."""
    token = _in_parts.set(allowed)
    try:
        yield
    finally:
        _in_parts.reset(token)


def in_force() -> str | None:
    """Return the choice that a run on this machine depends on; None if on none.

    What `Series` keeps, since another choice gives other bits: None on accelerators,
    "xla" where this jaxlib does not know `REDUCTIONS`.

    >>> with using("xla"):
    ...     in_force() in ("xla", None)
    True
    """
    if jax.default_backend() != "cpu":
        return None
    found = choice()
    return found if found == "xla" or _known(tuple(REDUCTIONS.items())) else "xla"


class Program:
    """A compiled function; see `jit`. Called, or lowered, as one of `jax.jit`."""

    def __init__(
        self,
        function: Callable,
        static_argnums: tuple[int, ...],
        static_argnames: tuple[str, ...],
        donate_argnums: tuple[int, ...],
    ):
        self._static, self._named = static_argnums, static_argnames
        self._functions = function, _with_parts(function)
        self._jit = functools.partial(
            jax.jit,
            static_argnums=static_argnums,
            static_argnames=static_argnames,
            donate_argnums=donate_argnums,
        )
        self._compiled: dict[tuple, Callable] = {}  # by convolutions and options
        self._wide: dict[Any, bool] = {}  # by what a program depends on
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the function returns."""
        return self._choose(args, kwargs)(*args, **kwargs)

    def lower(self, *args: Any, **kwargs: Any) -> jax.stages.Lowered:
        """Return the program of these arguments, not compiled yet."""
        return self._choose(args, kwargs).lower(*args, **kwargs)

    def _choose(self, args: tuple, kwargs: dict[str, Any]) -> Any:
        chosen = in_force()
        if core.get_opaque_trace_state(convention="flax") != _outside:
            return self._with(in_parts(), None)
        if chosen in (None, "xla"):
            return self._with(False, None)
        allowed = chosen == "rule" and not _on_several((args, kwargs))
        wide = chosen == "reductions" or self._is_wide(allowed, args, kwargs)
        return self._with(allowed, tuple(REDUCTIONS.items()) if wide else None)

    def _with(self, allowed: bool, options: tuple | None) -> Any:
        way = allowed, options
        if way not in self._compiled:
            own = None if options is None else dict(options)
            made = self._jit(self._functions[allowed], compiler_options=own)
            self._compiled[way] = made
        return self._compiled[way]

    def _is_wide(self, allowed: bool, args: tuple, kwargs: dict[str, Any]) -> bool:
        static = [arg for place, arg in enumerate(args) if place in self._static]
        named = [(name, kwargs.get(name)) for name in self._named]
        traced = [arg for place, arg in enumerate(args) if place not in self._static]
        rest = {name: kwargs[name] for name in kwargs if name not in self._named}
        leaves, structure = jax.tree.flatten((traced, rest))
        forms = [getattr(leaf, "aval", None) or _form(leaf) for leaf in leaves]
        program = allowed, *static, *named, structure, *forms
        if program not in self._wide:
            if len(self._wide) >= MEMORY:
                self._wide.clear()  # the rule decides alike when asked again
            jaxpr = self._with(allowed, None).trace(*args, **kwargs).jaxpr.jaxpr
            self._wide[program] = largest_convolution(jaxpr) >= LEAST
        return self._wide[program]


def jit(
    function: Callable | None = None,
    *,
    static_argnums: int | tuple[int, ...] = (),
    static_argnames: tuple[str, ...] = (),
    donate_argnums: int | tuple[int, ...] = (),
) -> Any:
    """Compile a function that runs a network: `jax.jit`, its options chosen here.

    Traced once for both options; inside another transformation it is a plain `jax.jit`,
    whose options and convolutions are those of the outermost program. The arguments are
    those of `jax.jit`; without the function this is a decorator with arguments. Returns
    a `Program`.

    Source: our choice.

    >>> jit(lambda w, x: w @ x)(np.eye(2), np.ones(2)).tolist()
    [1.0, 1.0]
    """
    options = {
        "static_argnums": _several(static_argnums),
        "static_argnames": static_argnames,
        "donate_argnums": _several(donate_argnums),
    }
    if function is None:
        return functools.partial(Program, **options)
    return Program(function, **options)


def pieces(total: int, batch_size: int) -> Iterator[np.ndarray]:
    """Yield the rows of each pass over some samples, `i32[B]`.

    All passes are of one size, so that one program serves all: the last one repeats the
    last row, and what is found for that is to be cut off.

    >>> [rows.tolist() for rows in pieces(5, 2)]
    [[0, 1], [2, 3], [4, 4]]
    """
    for start in range(0, total, batch_size):
        rows = np.arange(start, start + batch_size, dtype=np.int32)
        yield np.minimum(rows, total - 1)


def largest_convolution(jaxpr: Any) -> int:
    """Return the products a sample of a program's largest convolution, 0 without any.

    H'·W'·h·w·C·D of an h x w kernel from C to D channels: all products over the larger
    of batch and input channels. These change places in the gradient of the kernel, so
    that a convolution counts as much as its gradients. Loops and inner functions of the
    program, `jax.make_jaxpr(f)(…).jaxpr`, are looked into.

    Source: our choice.

    >>> def f(x, kernel):
    ...     return jax.lax.conv(x, kernel, (1, 1), "SAME")
    >>> x, kernel = np.ones((16, 8, 10, 10)), np.ones((4, 8, 3, 3))
    >>> jaxpr = jax.make_jaxpr(f)(x, kernel).jaxpr
    >>> largest_convolution(jaxpr) == 10 * 10 * 3 * 3 * 8 * 4
    True
    """
    most = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            images, kernel = (x.aval.shape for x in equation.invars)
            batch, channels, *_ = equation.params["dimension_numbers"].lhs_spec
            outer = equation.params["dimension_numbers"].rhs_spec[0]
            dilation = math.prod(equation.params["lhs_dilation"])  # products with zeros
            samples = max(images[batch], images[channels])
            products = math.prod(equation.outvars[0].aval.shape) * math.prod(kernel)
            most = max(most, products // max(1, kernel[outer] * dilation * samples))
        for inner in core.jaxprs_in_params(equation.params):
            most = max(most, largest_convolution(inner))
    return most


def _with_parts(function: Callable) -> Callable:
    """Return the function, traced with `in_parts`."""

    @functools.wraps(function)
    def within(*args, **kwargs):
        with parts(True):
            return function(*args, **kwargs)

    return within


def _form(leaf: Any) -> tuple:
    """Return shape and dtype of what is no array of JAX; a number has no dtype."""
    return np.shape(leaf), getattr(leaf, "dtype", None)


def _on_several(tree: Any) -> bool:
    """Return whether an array lies on several devices."""
    if jax.device_count() == 1:
        return False  # every step asks, and looking at each array takes long
    shardings = (getattr(leaf, "sharding", None) for leaf in jax.tree.leaves(tree))
    return any(own is not None and own.num_devices > 1 for own in shardings)


def _several(numbers: int | tuple[int, ...]) -> tuple[int, ...]:
    return (numbers,) if isinstance(numbers, int) else numbers


@functools.cache
def _known(options: tuple[tuple[str, str], ...]) -> bool:
    """Return whether this jaxlib compiles with the options."""
    try:
        jax.jit(lambda x: x + 1, compiler_options=dict(options))(np.float32(0))
    except jax.errors.JaxRuntimeError:
        return False
    return True
