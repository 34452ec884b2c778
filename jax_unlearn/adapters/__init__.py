"""Networks of flax, equinox, haiku, or plain functions as a `Model`.

Every adapter keeps the same contract: parameters and model state are pytrees of
strongly typed arrays, `train=False` returns the model state it was given, and
`train=True` returns one of the same structure, shapes and dtypes, so that a compiled
step is traced once. The network reads one positional argument, `inputs` `[B, ...]`,
which may be any pytree. Each adapter imports its framework when it is called.

How a network is told the mode: an argument of its call named `train`, `training` or
`is_training` gets `train`; one named `deterministic`, `use_running_average` or
`inference` gets `not train`. Without any of these, nnx modules are switched by
`Module.train()` and `Module.eval()`, equinox modules (always) by
`eqx.nn.inference_mode`; a linen module or haiku function then behaves alike in both.

`key` feeds dropout. A network that draws random numbers and has `key=None` raises
`InputError` instead of reusing a key in silence.
"""

from jax_unlearn.adapters.common import from_stateless as from_stateless
from jax_unlearn.adapters.common import two_classes as two_classes
from jax_unlearn.adapters.common import with_outputs as with_outputs
from jax_unlearn.adapters.equinox import equinox_variables as equinox_variables
from jax_unlearn.adapters.equinox import from_equinox as from_equinox
from jax_unlearn.adapters.flax import from_linen as from_linen
from jax_unlearn.adapters.flax import from_nnx as from_nnx
from jax_unlearn.adapters.flax import nnx_variables as nnx_variables
from jax_unlearn.adapters.haiku import from_haiku as from_haiku
