"""Per-sample weights on the forget set: equations on arrays, and their factories."""

from jax_unlearn.weights.combine import UNIFORM
from jax_unlearn.weights.combine import chain as chain
from jax_unlearn.weights.combine import clip as clip
from jax_unlearn.weights.combine import schedule as schedule
from jax_unlearn.weights.combine import stateless as stateless
from jax_unlearn.weights.combine import uniform as uniform
from jax_unlearn.weights.difficulty import EL2N, MARGIN
from jax_unlearn.weights.difficulty import by_score as by_score
from jax_unlearn.weights.difficulty import el2n as el2n
from jax_unlearn.weights.difficulty import gradient_norms as gradient_norms
from jax_unlearn.weights.difficulty import margin as margin
from jax_unlearn.weights.falw import FALW
from jax_unlearn.weights.falw import ClassStats as ClassStats
from jax_unlearn.weights.falw import Estimator as Estimator
from jax_unlearn.weights.falw import anchored as anchored
from jax_unlearn.weights.falw import class_balance as class_balance
from jax_unlearn.weights.falw import class_stats as class_stats
from jax_unlearn.weights.falw import confidence as confidence
from jax_unlearn.weights.falw import every as every
from jax_unlearn.weights.falw import exact as exact
from jax_unlearn.weights.falw import falw as falw
from jax_unlearn.weights.falw import falw_weights as falw_weights
from jax_unlearn.weights.falw import shrink as shrink
from jax_unlearn.weights.falw import streaming as streaming
from jax_unlearn.weights.language import BY_LENGTH, LOREUN_TOKENS, NPO, SIMNPO, WGA
from jax_unlearn.weights.language import TokenWeight as TokenWeight
from jax_unlearn.weights.language import by_length as by_length
from jax_unlearn.weights.language import loreun_tokens as loreun_tokens
from jax_unlearn.weights.language import npo as npo
from jax_unlearn.weights.language import npo_weights as npo_weights
from jax_unlearn.weights.language import satimp as satimp
from jax_unlearn.weights.language import simnpo as simnpo
from jax_unlearn.weights.language import wga as wga
from jax_unlearn.weights.loreun import LOREUN, LOREUN_STATIC, SFRON
from jax_unlearn.weights.loreun import Softmin as Softmin
from jax_unlearn.weights.loreun import by_table as by_table
from jax_unlearn.weights.loreun import loreun as loreun
from jax_unlearn.weights.loreun import loreun_static as loreun_static
from jax_unlearn.weights.loreun import loreun_weights as loreun_weights
from jax_unlearn.weights.loreun import sfron as sfron
from jax_unlearn.weights.loreun import sfron_weights as sfron_weights
from jax_unlearn.weights.loreun import softmin_weights as softmin_weights

__all__ = ["CARDS", "ClassStats", "Estimator", "Softmin", "TokenWeight", "anchored"]
__all__ += ["by_length", "by_score", "by_table", "chain", "class_balance"]
__all__ += ["class_stats", "clip", "confidence", "el2n", "every", "exact", "falw"]
__all__ += ["falw_weights", "gradient_norms", "loreun", "loreun_static"]
__all__ += ["loreun_tokens", "loreun_weights", "margin", "npo", "npo_weights", "satimp"]
__all__ += ["schedule", "sfron", "sfron_weights", "shrink", "simnpo", "softmin_weights"]
__all__ += ["stateless", "streaming", "uniform", "wga"]

CARDS = (UNIFORM, LOREUN, LOREUN_STATIC, FALW, SFRON, EL2N, MARGIN)
CARDS += (NPO, SIMNPO, WGA, LOREUN_TOKENS, BY_LENGTH)
"""What every weighting says of itself."""
