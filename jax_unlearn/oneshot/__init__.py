"""Unlearning in one shot: functions from parameters to parameters, without training."""

from jax_unlearn.oneshot.amnesiac import AMNESIAC
from jax_unlearn.oneshot.amnesiac import UpdateLog as UpdateLog
from jax_unlearn.oneshot.amnesiac import amnesiac as amnesiac
from jax_unlearn.oneshot.deltagrad import DELTAGRAD
from jax_unlearn.oneshot.deltagrad import DeltaGradInfo as DeltaGradInfo
from jax_unlearn.oneshot.deltagrad import Path as Path
from jax_unlearn.oneshot.deltagrad import deltagrad as deltagrad
from jax_unlearn.oneshot.deltagrad import gradient_path as gradient_path
from jax_unlearn.oneshot.deltagrad import lbfgs_product as lbfgs_product
from jax_unlearn.oneshot.fisher import FISHER_FORGETTING
from jax_unlearn.oneshot.fisher import fisher_information as fisher_information
from jax_unlearn.oneshot.fisher import fisher_noise as fisher_noise
from jax_unlearn.oneshot.fisher import published_noise as published_noise
from jax_unlearn.oneshot.influence import INFLUENCE
from jax_unlearn.oneshot.influence import influence as influence
from jax_unlearn.oneshot.influence import woodfisher as woodfisher
from jax_unlearn.oneshot.ssd import SSD
from jax_unlearn.oneshot.ssd import ssd as ssd
from jax_unlearn.oneshot.ssd import ssd_selected as ssd_selected
from jax_unlearn.oneshot.task_vector import TASK_VECTOR
from jax_unlearn.oneshot.task_vector import task_vector as task_vector

__all__ = ["CARDS", "DeltaGradInfo", "Path", "UpdateLog", "amnesiac", "deltagrad"]
__all__ += ["fisher_information", "fisher_noise", "gradient_path", "influence"]
__all__ += ["lbfgs_product", "ssd", "ssd_selected", "task_vector", "woodfisher"]

CARDS = (INFLUENCE, SSD, FISHER_FORGETTING, AMNESIAC, DELTAGRAD, TASK_VECTOR)
"""What every one-shot method says of itself."""
__all__ += ["published_noise"]
