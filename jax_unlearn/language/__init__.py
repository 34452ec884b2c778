"""Language models: texts, tokens, checkpoints."""

from jax_unlearn.language.text import Scored as Scored
from jax_unlearn.language.text import Text as Text

__all__ = ["Scored", "Text"]
