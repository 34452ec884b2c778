"""Machine unlearning for JAX: weighted, harmonized, audited against retraining.

Per-sample losses are a function of the parameters, weights are their cotangent, and
unlearning is one pullback, harmonized and handed to optax.
"""

import importlib
from typing import TYPE_CHECKING

from jax_unlearn import audit as audit
from jax_unlearn import cards as cards
from jax_unlearn import data as data
from jax_unlearn import diffusion as diffusion
from jax_unlearn import gradients as gradients
from jax_unlearn import harmonize as harmonize
from jax_unlearn import language as language
from jax_unlearn import losses as losses
from jax_unlearn import masks as masks
from jax_unlearn import membership as membership
from jax_unlearn import methods as methods
from jax_unlearn import objectives as objectives
from jax_unlearn import oneshot as oneshot
from jax_unlearn import optimizers as optimizers
from jax_unlearn import programs as programs
from jax_unlearn import weights as weights
from jax_unlearn.adapters import from_equinox as from_equinox
from jax_unlearn.adapters import from_haiku as from_haiku
from jax_unlearn.adapters import from_linen as from_linen
from jax_unlearn.adapters import from_nnx as from_nnx
from jax_unlearn.adapters import from_stateless as from_stateless
from jax_unlearn.adapters import trainable as trainable
from jax_unlearn.adapters import two_classes as two_classes
from jax_unlearn.adapters import variables_of as variables_of
from jax_unlearn.adapters import whole_variables as whole_variables
from jax_unlearn.adapters import with_outputs as with_outputs
from jax_unlearn.averages import averaged as averaged
from jax_unlearn.averages import ema_of as ema_of
from jax_unlearn.contracts import check_batch as check_batch
from jax_unlearn.drivers import checkpoint as checkpoint
from jax_unlearn.drivers import guards as guards
from jax_unlearn.drivers import memory as memory
from jax_unlearn.drivers import parameters as parameters
from jax_unlearn.drivers import resident as resident
from jax_unlearn.drivers import sharding as sharding
from jax_unlearn.drivers import signals as signals
from jax_unlearn.drivers import speed as speed
from jax_unlearn.drivers.ensemble import run_ensemble as run_ensemble
from jax_unlearn.drivers.ensemble import step_seconds as step_seconds
from jax_unlearn.drivers.loop import predict as predict
from jax_unlearn.drivers.loop import run as run
from jax_unlearn.drivers.loop import scan_steps as scan_steps
from jax_unlearn.drivers.series import Series as Series
from jax_unlearn.drivers.stacking import stack as stack
from jax_unlearn.drivers.stacking import unstack as unstack
from jax_unlearn.errors import InputError as InputError
from jax_unlearn.errors import NonFiniteError as NonFiniteError
from jax_unlearn.side_by_side import SideBySide as SideBySide
from jax_unlearn.side_by_side import compare as compare
from jax_unlearn.trainer import fit as fit
from jax_unlearn.types import Aux as Aux
from jax_unlearn.types import Batch as Batch
from jax_unlearn.types import LossFn as LossFn
from jax_unlearn.types import Model as Model
from jax_unlearn.types import Sample as Sample
from jax_unlearn.types import UnlearnBatch as UnlearnBatch
from jax_unlearn.types import Unlearner as Unlearner
from jax_unlearn.types import UnlearnInfo as UnlearnInfo
from jax_unlearn.types import UnlearnState as UnlearnState
from jax_unlearn.types import Weighting as Weighting

__all__ = ["Aux", "Batch", "InputError", "LossFn", "Model", "NonFiniteError", "Sample"]
__all__ += ["Series", "SideBySide", "UnlearnBatch", "UnlearnInfo", "UnlearnState"]
__all__ += ["Unlearner", "Weighting", "audit", "averaged", "cards", "check_batch"]
__all__ += ["checkpoint", "compare", "data", "diffusion", "ema_of", "fit"]
__all__ += [
    "from_equinox",
    "from_haiku",
    "from_linen",
    "from_nnx",
    "from_stateless",
    "gradients",
]
__all__ += ["guards", "harmonize", "language", "losses", "masks", "membership"]
__all__ += ["memory", "methods", "objectives", "oneshot", "optimizers", "parameters"]
__all__ += ["predict", "programs", "resident", "run", "run_ensemble", "scan_steps"]
__all__ += ["sharding", "signals", "speed", "stack", "step_seconds", "trainable"]
__all__ += ["two_classes", "unstack", "variables_of", "weights", "whole_variables"]
__all__ += ["with_outputs", "zoo"]

__version__ = "0.1.0"
stopping = signals

if TYPE_CHECKING:
    from jax_unlearn import zoo as zoo


def __getattr__(name: str):
    """Import the zoo on first use: it needs flax, which the core does not."""
    if name == "zoo":
        return importlib.import_module("jax_unlearn.zoo")
    raise AttributeError(f"module 'jax_unlearn' has no attribute {name!r}")
