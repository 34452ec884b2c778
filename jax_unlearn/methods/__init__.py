"""Unlearning methods, each assembled of an objective, a weighting and an optimizer."""

from jax_unlearn.methods.ascent import gradient_ascent as gradient_ascent
from jax_unlearn.methods.ascent import neggrad_plus as neggrad_plus
from jax_unlearn.methods.assemble import assemble as assemble
from jax_unlearn.methods.finetune import finetune as finetune
from jax_unlearn.methods.finetune import l1_penalty as l1_penalty
from jax_unlearn.methods.finetune import l1_sparse as l1_sparse
from jax_unlearn.methods.ltu import ltu as ltu
from jax_unlearn.methods.relabel import endpoint_transport as endpoint_transport
from jax_unlearn.methods.relabel import random_label as random_label
from jax_unlearn.methods.relabel import salun as salun
from jax_unlearn.methods.relabel import salun_soft as salun_soft
