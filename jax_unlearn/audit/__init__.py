"""Audits: how near an unlearned model is to Retrain, from plain arrays of outputs."""

from jax_unlearn.audit.comparison import Comparison as Comparison
from jax_unlearn.audit.comparison import MetricRow as MetricRow
from jax_unlearn.audit.comparison import PairedTest as PairedTest
from jax_unlearn.audit.comparison import compare as compare
from jax_unlearn.audit.comparison import comparison_table as comparison_table
from jax_unlearn.audit.comparison import paired_test as paired_test
from jax_unlearn.audit.deviation import ClassDeviation as ClassDeviation
from jax_unlearn.audit.deviation import DeviationCounts as DeviationCounts
from jax_unlearn.audit.deviation import GroupDeviation as GroupDeviation
from jax_unlearn.audit.deviation import deviation_by_class as deviation_by_class
from jax_unlearn.audit.deviation import deviation_by_group as deviation_by_group
from jax_unlearn.audit.deviation import deviation_counts as deviation_counts
from jax_unlearn.audit.deviation import per_sample_deviation as per_sample_deviation
from jax_unlearn.audit.deviation import unlearning_deviation as unlearning_deviation
from jax_unlearn.audit.features import entropy as entropy
from jax_unlearn.audit.features import modified_entropy as modified_entropy
from jax_unlearn.audit.features import true_class_confidence as true_class_confidence
from jax_unlearn.audit.features import true_class_loss as true_class_loss
from jax_unlearn.audit.membership import (
    entropy_mia_member_rate as entropy_mia_member_rate,
)
from jax_unlearn.audit.membership import loss_mia_accuracy as loss_mia_accuracy
from jax_unlearn.audit.membership import svc_mia_efficacy as svc_mia_efficacy
from jax_unlearn.audit.metrics import Metrics as Metrics
from jax_unlearn.audit.metrics import Predictions as Predictions
from jax_unlearn.audit.metrics import accuracy as accuracy
from jax_unlearn.audit.metrics import avg_gap as avg_gap
from jax_unlearn.audit.metrics import check_metrics as check_metrics
from jax_unlearn.audit.metrics import tow as tow
from jax_unlearn.audit.metrics import tow_mia as tow_mia
from jax_unlearn.audit.metrics import unlearning_metrics as unlearning_metrics
