"""Differentiable membership inference: was a sample part of the training data?"""

from jax_unlearn.membership.attacks import Attack as Attack
from jax_unlearn.membership.attacks import AttackParams as AttackParams
from jax_unlearn.membership.attacks import Dense as Dense
from jax_unlearn.membership.attacks import Gaussians as Gaussians
from jax_unlearn.membership.attacks import default_attacks as default_attacks
from jax_unlearn.membership.attacks import entropy_mlp as entropy_mlp
from jax_unlearn.membership.attacks import gaussian_ratio as gaussian_ratio
from jax_unlearn.membership.attacks import logistic as logistic
from jax_unlearn.membership.attacks import nonmember_loss as nonmember_loss
from jax_unlearn.membership.attacks import softmax_mlp as softmax_mlp
from jax_unlearn.membership.features import confidence_features as confidence_features
from jax_unlearn.membership.features import entropy as entropy
from jax_unlearn.membership.features import entropy_features as entropy_features
from jax_unlearn.membership.features import logit_confidence as logit_confidence
from jax_unlearn.membership.features import (
    logit_confidence_features as logit_confidence_features,
)
from jax_unlearn.membership.features import modified_entropy as modified_entropy
from jax_unlearn.membership.features import sorted_softmax as sorted_softmax
from jax_unlearn.membership.features import stack as stack
from jax_unlearn.membership.language import likelihood_features as likelihood_features
from jax_unlearn.membership.language import odds_features as odds_features
from jax_unlearn.membership.language import quantile_features as quantile_features
from jax_unlearn.membership.language import token_attacks as token_attacks
from jax_unlearn.membership.quality import AttackInfo as AttackInfo
from jax_unlearn.membership.quality import auc as auc
from jax_unlearn.membership.quality import auc_standard_error as auc_standard_error
from jax_unlearn.membership.quality import better_than_chance as better_than_chance
from jax_unlearn.membership.quality import check_attacks as check_attacks
from jax_unlearn.membership.shadow import Shadows as Shadows
from jax_unlearn.membership.shadow import pool as pool
from jax_unlearn.membership.shadow import shadow_observations as shadow_observations
from jax_unlearn.membership.shadow import train_shadows as train_shadows
from jax_unlearn.membership.training import Observed as Observed
from jax_unlearn.membership.training import assess as assess
from jax_unlearn.membership.training import train_attack as train_attack
from jax_unlearn.membership.training import train_attacks as train_attacks
from jax_unlearn.membership.training import train_shadow_attack as train_shadow_attack

__all__ = ["Attack", "AttackInfo", "AttackParams", "Dense", "Gaussians", "Observed"]
__all__ += ["Shadows", "assess", "auc", "auc_standard_error", "better_than_chance"]
__all__ += ["check_attacks", "confidence_features", "default_attacks", "entropy"]
__all__ += ["entropy_features", "entropy_mlp", "gaussian_ratio", "likelihood_features"]
__all__ += ["logistic", "logit_confidence", "logit_confidence_features"]
__all__ += ["modified_entropy", "nonmember_loss", "odds_features", "pool"]
__all__ += ["quantile_features", "shadow_observations", "softmax_mlp", "sorted_softmax"]
__all__ += ["stack", "token_attacks", "train_attack", "train_attacks"]
__all__ += ["train_shadow_attack", "train_shadows"]
