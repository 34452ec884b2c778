"""Networks of one's own, from a file that the user names: `FILE.py:NAME`.

NAME is a `ju.Model`, a module of flax (linen, or nnx with its parameters), or a
function or class that returns one. The function may take `rngs` (of nnx) and
`num_classes`.
"""

import functools
import inspect
from pathlib import Path
from typing import Any

import jax

from jax_unlearn.adapters import from_linen, from_nnx, with_outputs
from jax_unlearn.errors import InputError, one_line
from jax_unlearn.lab import catalog
from jax_unlearn.types import Model

__all__ = ["build", "described", "is_own", "placed", "same_start"]

GIVEN = "rngs", "num_classes"  # what a function may ask for


def is_own(name: str) -> bool:
    """Return whether a network is named by its file."""
    return ".py:" in name


def described(name: str) -> dict[str, str]:
    """Return what a record holds of a network's file, which the user has named."""
    catalog.load(name)
    catalog.trust(name)
    file = Path(name.rpartition(":")[0])
    return {"sha256": catalog.digest_of(name), "folder": str(file.resolve().parent)}


def placed(name: str, sha256: str, folder: str) -> str:
    """Return where the file that a record names is now, the very same file.

    Raises:
      InputError: it is gone, was changed, or may not be run on a record's word.
    """
    file, _, attribute = name.rpartition(":")
    places = [file, str(Path(folder) / Path(file).name)]
    there = [f"{place}:{attribute}" for place in places if Path(place).is_file()]
    remedy = f"give --network FILE.py:{attribute} to say which file to take"
    if not there:
        raise InputError(
            f"network {name!r}: its file is neither at {places[0]} nor in {folder}; "
            f"put it back, or {remedy}"
        )
    same = [path for path in there if catalog.digest_of(path) == sha256]
    if not same:
        raise InputError(
            f"network {name!r}: {there[0].rpartition(':')[0]} was changed since the "
            f"checkpoint was made (another SHA-256); put the old file back, or {remedy}"
        )
    if not catalog.trusted(same[0]):
        raise InputError(
            f"network {name!r} is named by a record, not by you: its file is not run; "
            f"give --network {same[0]}, or set {catalog.TRUST}=1 to run such files"
        )
    return same[0]


def build(
    name: str, num_classes: int, input_shape: tuple[int, ...]
) -> tuple[Model, Model]:
    """Return the model of a network's file, and that of its features.

    These are what its method `features` returns, flat, of a flax module that has one,
    else its logits.

    Raises:
      InputError: no such network, or one that does not run on the data's samples or has
        other outputs than a logit a class.
    """
    model, features = _models(name, num_classes)
    if features is not model:
        features = with_outputs(features, lambda seen: seen.reshape(len(seen), -1))
    if input_shape[:2] == (1, 1):  # of a table: its rows, without places
        model, features = _of_rows(model), _of_rows(features)
    example = jax.ShapeDtypeStruct((2, *input_shape), jax.numpy.float32)
    shape = (2, input_shape[-1]) if input_shape[:2] == (1, 1) else example.shape
    samples = f"{list(shape)} float32"

    def outputs(of: Model) -> Any:
        at = jax.eval_shape(model.init, jax.random.key(0), example)
        apply = functools.partial(of.apply, train=False)
        return jax.eval_shape(apply, *at, example)[0]

    try:
        made, _ = outputs(model), outputs(features)
    except Exception as error:  # whatever the user's code raises
        raise InputError(
            f"network={name!r} does not run on samples of shape {samples} "
            f"({type(error).__name__}: {one_line(error)}); mend it, or give other data"
        ) from error
    if getattr(made, "shape", None) != (2, num_classes):
        shape = getattr(made, "shape", type(made).__name__)
        raise InputError(
            f"network={name!r} returns {shape} for {samples}; logits of shape "
            f"{(2, num_classes)} are expected, one a class of the data"
        )
    return model, features


def _of_rows(model: Model) -> Model:
    """Return a model of rows `[B, F]` as one of `[B, 1, 1, F]`, as data hold them."""

    def apply(params, model_state, inputs, **told):
        return model.apply(params, model_state, inputs[:, 0, 0], **told)

    return Model(lambda key, inputs: model.init(key, inputs[:, 0, 0]), apply)


def same_start(name: str) -> bool:
    """Return whether each training begins with the same parameters."""
    made = catalog.load(name)
    if isinstance(made, Model) or _is_linen(made):
        return False
    if _is_nnx(made):
        return True
    return "rngs" not in _parameters(made) and _is_nnx(_called(name, made, 2))


def _models(name: str, num_classes: int) -> tuple[Model, Model]:
    made = catalog.load(name)
    if not (isinstance(made, Model) or _is_linen(made) or _is_nnx(made)):
        if not callable(made):
            raise _no_network(name, made)
        if "rngs" in _parameters(made):
            make = functools.partial(_called, name, made, num_classes)
            return _of_nnx(lambda rngs: make(rngs=rngs), made)
        maker, made = made, _called(name, made, num_classes)
        if _is_nnx(made):
            make = functools.partial(_called, name, maker, num_classes)
            return _of_nnx(lambda rngs: make(), made)
    if isinstance(made, Model):
        return made, made
    if _is_linen(made):
        model = from_linen(made)
        has = inspect.isfunction(getattr(type(made), "features", None))
        return model, from_linen(made, method="features") if has else model
    if not _is_nnx(made):
        raise _no_network(name, made)
    from flax import nnx

    parts = nnx.split(made)
    return _of_nnx(lambda rngs: nnx.merge(*parts), made)


def _of_nnx(make: Any, like: Any) -> tuple[Model, Model]:
    model = from_nnx(make)
    if not inspect.isfunction(like):
        has = callable(getattr(like, "features", None))
    else:
        from flax import nnx

        module = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
        has = callable(getattr(module, "features", None))
    return model, from_nnx(make, method="features") if has else model


def _called(name: str, made: Any, num_classes: int, **given: Any) -> Any:
    """Return what a function or a class of the file makes of what it asks for."""
    needed = [
        parameter.name
        for parameter in _parameters(made).values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        and parameter.name not in GIVEN
    ]
    if needed:
        raise InputError(
            f"network={name!r} asks for {needed[0]!r}; let it take no more than "
            f"{' and '.join(GIVEN)}, or give the others a default"
        )
    given["num_classes"] = num_classes
    asked = {key: v for key, v in given.items() if key in _parameters(made)}
    try:
        return made(**asked)
    except Exception as error:  # whatever the user's code raises
        raise InputError(
            f"network={name!r} fails ({type(error).__name__}: {one_line(error)}); mend "
            "it"
        ) from error


def _parameters(made: Any) -> dict[str, inspect.Parameter]:
    # the metaclass of nnx takes anything
    function = made.__init__ if inspect.isclass(made) else made
    try:
        found = dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # of code that is not Python's
        return {}
    if inspect.isclass(made):
        found.pop(next(iter(found), ""), None)  # self
    return found


def _is_linen(made: Any) -> bool:
    from flax import linen

    return isinstance(made, linen.Module)


def _is_nnx(made: Any) -> bool:
    from flax import nnx

    return isinstance(made, nnx.Module)


def _no_network(name: str, made: Any) -> InputError:
    return InputError(
        f"network={name!r} gives {type(made).__name__}; let it return a ju.Model (of "
        "ju.from_equinox, ju.from_haiku, ...) or a module of flax"
    )
