"""Loss functions: what is minimised on forget and retain samples."""

from jax_unlearn.objectives.alternatives import Answers as Answers
from jax_unlearn.objectives.alternatives import alternative as alternative
from jax_unlearn.objectives.alternatives import dpo as dpo
from jax_unlearn.objectives.alternatives import token_nonmember as token_nonmember
from jax_unlearn.objectives.base import Objective as Objective
from jax_unlearn.objectives.base import OutputLoss as OutputLoss
from jax_unlearn.objectives.boundary import Neighbours as Neighbours
from jax_unlearn.objectives.boundary import boundary_labels as boundary_labels
from jax_unlearn.objectives.boundary import boundary_neighbours as boundary_neighbours
from jax_unlearn.objectives.boundary import fixed_label as fixed_label
from jax_unlearn.objectives.classification import ascent as ascent
from jax_unlearn.objectives.classification import contrast as contrast
from jax_unlearn.objectives.classification import descent as descent
from jax_unlearn.objectives.classification import distill as distill
from jax_unlearn.objectives.classification import draw_labels as draw_labels
from jax_unlearn.objectives.classification import imitate as imitate
from jax_unlearn.objectives.classification import nonmember as nonmember
from jax_unlearn.objectives.classification import random_label as random_label
from jax_unlearn.objectives.classification import repel as repel
from jax_unlearn.objectives.classification import transport as transport
from jax_unlearn.objectives.classification import uniform as uniform
from jax_unlearn.objectives.diffusion import Denoised as Denoised
from jax_unlearn.objectives.diffusion import denoise as denoise
from jax_unlearn.objectives.diffusion import denoise_ascent as denoise_ascent
from jax_unlearn.objectives.diffusion import denoise_uniform as denoise_uniform
from jax_unlearn.objectives.diffusion import denoising_features as denoising_features
from jax_unlearn.objectives.diffusion import denoising_nonmember as denoising_nonmember
from jax_unlearn.objectives.diffusion import negative_guidance as negative_guidance
from jax_unlearn.objectives.diffusion import relabel_condition as relabel_condition
from jax_unlearn.objectives.endpoint import density_ratio as density_ratio
from jax_unlearn.objectives.endpoint import quantile_match as quantile_match
from jax_unlearn.objectives.endpoint import sharpness as sharpness
from jax_unlearn.objectives.endpoint import target_table as target_table
from jax_unlearn.objectives.endpoint import transport_targets as transport_targets
from jax_unlearn.objectives.language import Teacher as Teacher
from jax_unlearn.objectives.language import next_token as next_token
from jax_unlearn.objectives.language import next_token_ascent as next_token_ascent
from jax_unlearn.objectives.language import npo as npo
from jax_unlearn.objectives.language import reduced as reduced
from jax_unlearn.objectives.language import simnpo as simnpo
from jax_unlearn.objectives.reference import class_references as class_references
from jax_unlearn.objectives.reference import gumbel as gumbel
from jax_unlearn.objectives.reference import other_classes as other_classes
from jax_unlearn.objectives.reference import reference as reference
from jax_unlearn.objectives.siss import Pairs as Pairs
from jax_unlearn.objectives.siss import importance_weights as importance_weights
from jax_unlearn.objectives.siss import pairs as pairs
from jax_unlearn.objectives.tokens import Judged as Judged
from jax_unlearn.objectives.tokens import ceu as ceu
from jax_unlearn.objectives.tokens import hold_hidden as hold_hidden
from jax_unlearn.objectives.tokens import kl_to_teacher as kl_to_teacher
from jax_unlearn.objectives.tokens import max_entropy as max_entropy
from jax_unlearn.objectives.tokens import pdu_forget as pdu_forget
from jax_unlearn.objectives.tokens import rmu as rmu
from jax_unlearn.objectives.tokens import undial as undial

__all__ = ["Answers", "Denoised", "Judged", "Neighbours", "Objective", "OutputLoss"]
__all__ += ["Pairs", "Teacher", "alternative", "ascent"]
__all__ += ["boundary_labels", "boundary_neighbours", "ceu", "class_references"]
__all__ += ["contrast", "denoise", "denoise_ascent", "denoise_uniform"]
__all__ += [
    "denoising_features",
    "denoising_nonmember",
    "density_ratio",
    "descent",
    "distill",
    "dpo",
]
__all__ += ["draw_labels", "fixed_label", "gumbel", "hold_hidden", "imitate"]
__all__ += ["importance_weights", "kl_to_teacher", "max_entropy", "negative_guidance"]
__all__ += ["next_token", "next_token_ascent", "nonmember", "npo", "other_classes"]
__all__ += ["pairs", "pdu_forget", "quantile_match", "random_label", "reduced"]
__all__ += ["reference", "relabel_condition", "repel", "rmu", "sharpness", "simnpo"]
__all__ += ["target_table", "token_nonmember", "transport", "transport_targets"]
__all__ += ["undial", "uniform"]
