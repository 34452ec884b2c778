"""Networks of flax, equinox, haiku, or plain functions as a `Model`.

Every adapter keeps the same contract: parameters and model state are pytrees of
strongly typed arrays, `train=False` returns the model state it was given, and
`train=True` returns one of the same structure, shapes and dtypes, so that a compiled
step is traced once. The network reads one positional argument, `inputs` `[B, ...]`,
which may be any pytree. Each adapter imports its framework when it is called.

How a network is told the mode: an argument of its call named `train`, `training` or
`is_training` gets `train`; one named `deterministic`, `use_running_average` or
`inference` gets `not train`; another is named by `train_argument=`. Modules of nnx and
equinox are switched to evaluation by `Module.eval()` and `eqx.nn.inference_mode` too; a
linen module by its field of such a name, if its call has no such argument. A layer that
its constructor freezes (`use_running_average=True`) evaluates in both modes. A network
whose BatchNorm or Dropout would never train, though an argument might tell it to, is
refused.

`variables_of` gives the variables of a trained network; `trainable` leaves a part of
the parameters to the methods.

`key` feeds dropout. A network that draws random numbers and has `key=None` raises
`InputError` instead of reusing a key in silence.
"""

from jax_unlearn.adapters.common import from_stateless as from_stateless
from jax_unlearn.adapters.common import two_classes as two_classes
from jax_unlearn.adapters.common import with_outputs as with_outputs
from jax_unlearn.adapters.equinox import equinox_variables as equinox_variables
from jax_unlearn.adapters.equinox import from_equinox as from_equinox
from jax_unlearn.adapters.haiku import from_haiku as from_haiku
from jax_unlearn.adapters.linen import from_linen as from_linen
from jax_unlearn.adapters.linen import linen_variables as linen_variables
from jax_unlearn.adapters.nnx import from_nnx as from_nnx
from jax_unlearn.adapters.nnx import nnx_variables as nnx_variables
from jax_unlearn.adapters.parts import PartState as PartState
from jax_unlearn.adapters.parts import trainable as trainable
from jax_unlearn.adapters.parts import whole_variables as whole_variables
from jax_unlearn.adapters.variables import variables_of as variables_of

__all__ = ["PartState", "equinox_variables", "from_equinox", "from_haiku", "from_linen"]
__all__ += ["from_nnx", "from_stateless", "linen_variables", "nnx_variables"]
__all__ += ["trainable", "two_classes", "variables_of", "whole_variables"]
__all__ += ["with_outputs"]
