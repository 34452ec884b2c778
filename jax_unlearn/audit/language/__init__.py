"""Audits of language models: from losses of tokens as plain arrays, and texts."""

from jax_unlearn.audit.language.answers import KsQuality as KsQuality
from jax_unlearn.audit.language.answers import Rouge as Rouge
from jax_unlearn.audit.language.answers import knowmem as knowmem
from jax_unlearn.audit.language.answers import ks_quality as ks_quality
from jax_unlearn.audit.language.answers import model_utility as model_utility
from jax_unlearn.audit.language.answers import rouge_l as rouge_l
from jax_unlearn.audit.language.answers import truth_ratio as truth_ratio
from jax_unlearn.audit.language.answers import truth_score as truth_score
from jax_unlearn.audit.language.answers import verbmem as verbmem
from jax_unlearn.audit.language.attacks import attack_auc as attack_auc
from jax_unlearn.audit.language.attacks import (
    gradient_norm_score as gradient_norm_score,
)
from jax_unlearn.audit.language.attacks import loss_score as loss_score
from jax_unlearn.audit.language.attacks import min_k as min_k
from jax_unlearn.audit.language.attacks import min_k_plus_plus as min_k_plus_plus
from jax_unlearn.audit.language.attacks import privleak as privleak
from jax_unlearn.audit.language.attacks import recall as recall
from jax_unlearn.audit.language.attacks import reference_score as reference_score
from jax_unlearn.audit.language.attacks import token_moments as token_moments
from jax_unlearn.audit.language.attacks import zlib_ratio as zlib_ratio
from jax_unlearn.audit.language.figures import Judged as Judged
from jax_unlearn.audit.language.figures import TextOutputs as TextOutputs
from jax_unlearn.audit.language.figures import language_audit as language_audit
from jax_unlearn.audit.language.figures import language_figures as language_figures
from jax_unlearn.audit.language.files import Logged as Logged
from jax_unlearn.audit.language.files import figures_in as figures_in
from jax_unlearn.audit.language.files import logged as logged
from jax_unlearn.audit.language.files import read_results as read_results
from jax_unlearn.audit.language.files import write_results as write_results
from jax_unlearn.audit.language.tokens import Ragged as Ragged
from jax_unlearn.audit.language.tokens import choice_probability as choice_probability
from jax_unlearn.audit.language.tokens import exact_memorization as exact_memorization
from jax_unlearn.audit.language.tokens import extraction_strength as extraction_strength
from jax_unlearn.audit.language.tokens import mean_nll as mean_nll
from jax_unlearn.audit.language.tokens import perplexity as perplexity
from jax_unlearn.audit.language.tokens import probability as probability
from jax_unlearn.audit.language.tokens import ragged as ragged

__all__ = ["Judged", "KsQuality", "Logged", "Ragged", "Rouge", "TextOutputs"]
__all__ += ["attack_auc", "choice_probability", "exact_memorization"]
__all__ += ["extraction_strength", "figures_in", "gradient_norm_score", "knowmem"]
__all__ += ["ks_quality", "language_audit", "language_figures", "logged", "loss_score"]
__all__ += ["mean_nll", "min_k"]
__all__ += ["min_k_plus_plus", "model_utility", "perplexity", "privleak", "probability"]
__all__ += ["ragged", "read_results", "recall", "reference_score", "rouge_l"]
__all__ += ["token_moments", "truth_ratio", "truth_score", "verbmem", "write_results"]
__all__ += ["zlib_ratio"]
