"""From models to the plain arrays that an audit reads."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from jax_unlearn.audit.evidence import ModelOutputs
from jax_unlearn.drivers.loop import predict
from jax_unlearn.errors import InputError
from jax_unlearn.types import Model, ModelState, Params, PyTree


class Fitted(Protocol):
    """A model's parameters and state: an `UnlearnState`, or anything like it."""

    @property
    def params(self) -> Params:
        """The parameters."""
        ...

    @property
    def model_state(self) -> ModelState:
        """The model state."""
        ...


class PartInputs(NamedTuple):
    """Inputs of the parts of a request, pytrees of arrays `[n, ...]`.

    Attributes:
      forget, retain, test, unseen: as in `ModelOutputs`.
    """

    forget: PyTree
    retain: PyTree
    test: PyTree
    unseen: PyTree = None


def model_outputs(
    model: Model,
    states: Sequence[Fitted],
    inputs: PartInputs,
    *,
    batch_size: int = 512,
) -> ModelOutputs:
    """Run N models over the parts of a request, in eval mode.

    Args:
      model: the network, the same for all.
      states: of the N models; `ju.unstack(states)` of an ensemble.
      inputs: of the parts.
      batch_size: samples a pass.

    Returns:
      Outputs `[N, n, K]` by part, for `ju.audit(...)`.

    Raises:
      InputError: no model.

    >>> import jax.numpy as jnp
    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> x = jnp.array([[1.0, 0.0]])
    >>> state = ju.UnlearnState(jnp.float32(2), (), (), (), (), jnp.int32(0))
    >>> model_outputs(model, [state], PartInputs(x, x, x)).test.tolist()
    [[[2.0, 0.0]]]
    """
    if not states:
        raise InputError("states=[]: give one model or more")

    def on(part: PyTree) -> Any:
        if part is None:
            return None
        return np.stack(
            [
                predict(model, one.params, one.model_state, part, batch_size=batch_size)
                for one in states
            ]
        )

    return ModelOutputs(*(on(part) for part in inputs))
