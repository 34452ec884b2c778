"""Unlearning methods, each assembled of an objective, a weighting and an optimizer.

`CARDS` is the catalogue: what every method says of itself, beside its factory.
"""

from jax_unlearn.methods.accountant import Guarantee as Guarantee
from jax_unlearn.methods.accountant import NoisySteps as NoisySteps
from jax_unlearn.methods.accountant import guarantee_of as guarantee_of
from jax_unlearn.methods.accountant import noise_scale as noise_scale
from jax_unlearn.methods.accountant import noisy_steps as noisy_steps
from jax_unlearn.methods.accountant import renyi_of as renyi_of
from jax_unlearn.methods.accountant import renyi_rate as renyi_rate
from jax_unlearn.methods.adversarial import AMUN
from jax_unlearn.methods.adversarial import amun as amun
from jax_unlearn.methods.ascent import ESD, GRADIENT_ASCENT, NEGGRAD_PLUS
from jax_unlearn.methods.ascent import gradient_ascent as gradient_ascent
from jax_unlearn.methods.ascent import neggrad_plus as neggrad_plus
from jax_unlearn.methods.assemble import assemble as assemble
from jax_unlearn.methods.auto import AUTO
from jax_unlearn.methods.auto import auto as auto
from jax_unlearn.methods.auto import shrinkage as shrinkage
from jax_unlearn.methods.boundary import BOUNDARY_EXPAND, BOUNDARY_SHRINK
from jax_unlearn.methods.boundary import boundary_expand as boundary_expand
from jax_unlearn.methods.boundary import boundary_shrink as boundary_shrink
from jax_unlearn.methods.certified import CERTIFIED
from jax_unlearn.methods.certified import certified as certified
from jax_unlearn.methods.contrastive import FCS
from jax_unlearn.methods.contrastive import fcs as fcs
from jax_unlearn.methods.erasediff import ERASEDIFF
from jax_unlearn.methods.erasediff import constrained as constrained
from jax_unlearn.methods.erasediff import erasediff as erasediff
from jax_unlearn.methods.finetune import FINETUNE, L1_SPARSE, RETRAIN
from jax_unlearn.methods.finetune import finetune as finetune
from jax_unlearn.methods.finetune import l1_penalty as l1_penalty
from jax_unlearn.methods.finetune import l1_sparse as l1_sparse
from jax_unlearn.methods.kernels import CT, MSG
from jax_unlearn.methods.kernels import insensitive as insensitive
from jax_unlearn.methods.kernels import reinitialised as reinitialised
from jax_unlearn.methods.kernels import slowed as slowed
from jax_unlearn.methods.kernels import transposed_kernels as transposed_kernels
from jax_unlearn.methods.language import LANGUAGE_CARDS
from jax_unlearn.methods.lotus import LOTUS
from jax_unlearn.methods.lotus import lotus as lotus
from jax_unlearn.methods.lotus import lotus_temperature as lotus_temperature
from jax_unlearn.methods.ltu import LTU
from jax_unlearn.methods.ltu import ltu as ltu
from jax_unlearn.methods.ltu import meta_unlearn as meta_unlearn
from jax_unlearn.methods.orthograd import ORTHOGRAD
from jax_unlearn.methods.orthograd import off_span as off_span
from jax_unlearn.methods.orthograd import orthograd as orthograd
from jax_unlearn.methods.pdu import PDU
from jax_unlearn.methods.pdu import multiplier as multiplier
from jax_unlearn.methods.pdu import pdu as pdu
from jax_unlearn.methods.reference import DELETE, REGUN
from jax_unlearn.methods.reference import delete as delete
from jax_unlearn.methods.reference import regun as regun
from jax_unlearn.methods.relabel import (
    AMNESIAC_RELABEL,
    ENDPOINT_TRANSPORT,
    RANDOM_LABEL,
    SALUN,
    SALUN_SOFT,
)
from jax_unlearn.methods.relabel import amnesiac_relabel as amnesiac_relabel
from jax_unlearn.methods.relabel import endpoint_transport as endpoint_transport
from jax_unlearn.methods.relabel import random_label as random_label
from jax_unlearn.methods.relabel import salun as salun
from jax_unlearn.methods.relabel import salun_soft as salun_soft
from jax_unlearn.methods.reset import PARTIAL_RESET, RESET_TRANSPORT, SHORT_RETRAIN
from jax_unlearn.methods.reset import partial_reset as partial_reset
from jax_unlearn.methods.reset import reset_transport as reset_transport
from jax_unlearn.methods.rewinding import REWIND
from jax_unlearn.methods.rum import RUM
from jax_unlearn.methods.rum import memorised_parts as memorised_parts
from jax_unlearn.methods.rum import rum as rum
from jax_unlearn.methods.sfron import SFRON
from jax_unlearn.methods.sfron import sfron as sfron
from jax_unlearn.methods.sfron import sfron_strength as sfron_strength
from jax_unlearn.methods.siss import SISS
from jax_unlearn.methods.siss import siss as siss
from jax_unlearn.methods.siss import subtract as subtract
from jax_unlearn.methods.teachers import BAD_TEACHER, SCRUB
from jax_unlearn.methods.teachers import bad_teacher as bad_teacher
from jax_unlearn.methods.teachers import class_matched_error as class_matched_error
from jax_unlearn.methods.teachers import rewind as rewind
from jax_unlearn.methods.teachers import scrub as scrub
from jax_unlearn.methods.unsir import UNSIR
from jax_unlearn.methods.unsir import unsir as unsir
from jax_unlearn.methods.unsir import unsir_noise as unsir_noise

__all__ = ["CARDS", "Guarantee", "NoisySteps", "amnesiac_relabel", "amun", "assemble"]
__all__ += ["auto", "constrained", "erasediff", "shrinkage"]
__all__ += ["bad_teacher", "boundary_expand", "boundary_shrink", "certified"]
__all__ += ["class_matched_error", "delete", "endpoint_transport", "fcs", "finetune"]
__all__ += ["gradient_ascent", "guarantee_of", "insensitive", "l1_penalty", "l1_sparse"]
__all__ += ["lotus", "lotus_temperature", "ltu", "memorised_parts", "meta_unlearn"]
__all__ += ["multiplier", "neggrad_plus", "noise_scale", "noisy_steps", "off_span"]
__all__ += ["orthograd", "partial_reset", "pdu", "random_label", "regun"]
__all__ += ["reinitialised", "renyi_of", "renyi_rate", "reset_transport", "rewind"]
__all__ += ["rum", "salun", "salun_soft", "scrub", "sfron", "sfron_strength", "siss"]
__all__ += ["slowed", "subtract", "transposed_kernels", "unsir", "unsir_noise"]

CARDS = (FINETUNE, GRADIENT_ASCENT, RANDOM_LABEL, SALUN, SALUN_SOFT, NEGGRAD_PLUS)
CARDS += (L1_SPARSE, ENDPOINT_TRANSPORT, LTU, BOUNDARY_SHRINK, BOUNDARY_EXPAND, SFRON)
CARDS += (SCRUB, BAD_TEACHER, AMNESIAC_RELABEL, UNSIR, ESD, PARTIAL_RESET)
CARDS += (SHORT_RETRAIN, RETRAIN, CT, MSG, DELETE, REGUN)
CARDS += (ORTHOGRAD, REWIND, AMUN, CERTIFIED, LOTUS, RUM, SISS, FCS, PDU, AUTO)
CARDS += (ERASEDIFF, RESET_TRANSPORT)
CARDS += LANGUAGE_CARDS
