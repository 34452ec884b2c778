"""Language models: texts, tokens, checkpoints."""

from jax_unlearn.language.model import decoder as decoder
from jax_unlearn.language.text import Scored as Scored
from jax_unlearn.language.text import Text as Text
from jax_unlearn.language.text import answered as answered
from jax_unlearn.language.text import scored as scored
from jax_unlearn.language.text import text_losses as text_losses

__all__ = ["Scored", "Text", "answered", "decoder", "scored", "text_losses"]
