"""Language models: texts, tokens, checkpoints."""

from jax_unlearn.language.equations import ceu_loss as ceu_loss
from jax_unlearn.language.equations import entropy_gap as entropy_gap
from jax_unlearn.language.equations import flatness as flatness
from jax_unlearn.language.equations import preference_loss as preference_loss
from jax_unlearn.language.equations import simnpo_loss as simnpo_loss
from jax_unlearn.language.equations import steering_loss as steering_loss
from jax_unlearn.language.equations import undial_loss as undial_loss
from jax_unlearn.language.model import decoder as decoder
from jax_unlearn.language.text import Scored as Scored
from jax_unlearn.language.text import Text as Text
from jax_unlearn.language.text import answered as answered
from jax_unlearn.language.text import scored as scored
from jax_unlearn.language.text import text_losses as text_losses

__all__ = ["Scored", "Text", "answered", "ceu_loss", "decoder", "entropy_gap"]
__all__ += ["flatness", "preference_loss", "scored", "simnpo_loss", "steering_loss"]
__all__ += ["text_losses", "undial_loss"]
