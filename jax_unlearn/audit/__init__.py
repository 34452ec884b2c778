"""Audits: how near an unlearned model is to Retrain, from plain arrays of outputs."""

import sys
import types

from jax_unlearn.audit import language as language
from jax_unlearn.audit.alignment import gradient_alignment as gradient_alignment
from jax_unlearn.audit.auditor import Audit as Audit
from jax_unlearn.audit.auditor import Detail as Detail
from jax_unlearn.audit.auditor import Figure as Figure
from jax_unlearn.audit.auditor import audit as audit
from jax_unlearn.audit.auditor import audit_table as audit_table
from jax_unlearn.audit.auditor import to_record as to_record
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
from jax_unlearn.audit.difference import DifferenceAttack as DifferenceAttack
from jax_unlearn.audit.difference import Pair as Pair
from jax_unlearn.audit.difference import difference_attack as difference_attack
from jax_unlearn.audit.difference import difference_features as difference_features
from jax_unlearn.audit.evidence import Evidence as Evidence
from jax_unlearn.audit.evidence import FigureCard as FigureCard
from jax_unlearn.audit.evidence import ModelOutputs as ModelOutputs
from jax_unlearn.audit.evidence import PartInputs as PartInputs
from jax_unlearn.audit.evidence import PartLabels as PartLabels
from jax_unlearn.audit.evidence import model_outputs as model_outputs
from jax_unlearn.audit.exposure import Exposure as Exposure
from jax_unlearn.audit.exposure import retain_exposure as retain_exposure
from jax_unlearn.audit.features import accuracy as accuracy
from jax_unlearn.audit.features import entropy as entropy
from jax_unlearn.audit.features import interclass_confusion as interclass_confusion
from jax_unlearn.audit.features import margins as margins
from jax_unlearn.audit.features import margins_from_probs as margins_from_probs
from jax_unlearn.audit.features import modified_entropy as modified_entropy
from jax_unlearn.audit.features import true_class_confidence as true_class_confidence
from jax_unlearn.audit.features import true_class_loss as true_class_loss
from jax_unlearn.audit.figures import DIVISIONS as DIVISIONS
from jax_unlearn.audit.figures import FIGURES as FIGURES
from jax_unlearn.audit.figures import GROUPS as GROUPS
from jax_unlearn.audit.figures import KINDS as KINDS
from jax_unlearn.audit.figures import PROXIES as PROXIES
from jax_unlearn.audit.forgetting import ForgettingQuality as ForgettingQuality
from jax_unlearn.audit.forgetting import example_epsilon as example_epsilon
from jax_unlearn.audit.forgetting import forgetting_null as forgetting_null
from jax_unlearn.audit.forgetting import forgetting_points as forgetting_points
from jax_unlearn.audit.forgetting import forgetting_quality as forgetting_quality
from jax_unlearn.audit.forgetting import forgetting_score as forgetting_score
from jax_unlearn.audit.generation import GenerationMetrics as GenerationMetrics
from jax_unlearn.audit.generation import Moments as Moments
from jax_unlearn.audit.generation import class_frechet as class_frechet
from jax_unlearn.audit.generation import feature_moments as feature_moments
from jax_unlearn.audit.generation import frechet_distance as frechet_distance
from jax_unlearn.audit.generation import generation_metrics as generation_metrics
from jax_unlearn.audit.groups import OF_GROUPS as OF_GROUPS
from jax_unlearn.audit.groups import Grouped as Grouped
from jax_unlearn.audit.groups import audit_by_group as audit_by_group
from jax_unlearn.audit.groups import divided as divided
from jax_unlearn.audit.groups import group_table as group_table
from jax_unlearn.audit.groups import groups_record as groups_record
from jax_unlearn.audit.inception import inception_features as inception_features
from jax_unlearn.audit.inception import load_inception as load_inception
from jax_unlearn.audit.klom import Klom as Klom
from jax_unlearn.audit.klom import klom as klom
from jax_unlearn.audit.klom import klom_null as klom_null
from jax_unlearn.audit.lira import ULira as ULira
from jax_unlearn.audit.lira import u_lira as u_lira
from jax_unlearn.audit.membership import (
    entropy_mia_member_rate as entropy_mia_member_rate,
)
from jax_unlearn.audit.membership import loss_mia_accuracy as loss_mia_accuracy
from jax_unlearn.audit.membership import svc_mia_efficacy as svc_mia_efficacy
from jax_unlearn.audit.memorisation import BINS as BINS
from jax_unlearn.audit.memorisation import Division as Division
from jax_unlearn.audit.memorisation import by_confidence as by_confidence
from jax_unlearn.audit.memorisation import by_memorisation as by_memorisation
from jax_unlearn.audit.memorisation import memorisation as memorisation
from jax_unlearn.audit.memorisation import memorisation_bins as memorisation_bins
from jax_unlearn.audit.memorisation import memorisation_proxy as memorisation_proxy
from jax_unlearn.audit.metrics import Metrics as Metrics
from jax_unlearn.audit.metrics import Predictions as Predictions
from jax_unlearn.audit.metrics import avg_gap as avg_gap
from jax_unlearn.audit.metrics import check_metrics as check_metrics
from jax_unlearn.audit.metrics import tow as tow
from jax_unlearn.audit.metrics import tow_mia as tow_mia
from jax_unlearn.audit.metrics import unlearning_metrics as unlearning_metrics
from jax_unlearn.audit.poisoning import Gus as Gus
from jax_unlearn.audit.poisoning import Poisoned as Poisoned
from jax_unlearn.audit.poisoning import gaussian_score as gaussian_score
from jax_unlearn.audit.poisoning import gus as gus
from jax_unlearn.audit.poisoning import poison as poison
from jax_unlearn.audit.quantise import quantised as quantised
from jax_unlearn.audit.rates import Rate as Rate
from jax_unlearn.audit.rates import Roc as Roc
from jax_unlearn.audit.rates import bootstrap_interval as bootstrap_interval
from jax_unlearn.audit.rates import clopper_pearson as clopper_pearson
from jax_unlearn.audit.rates import roc_auc as roc_auc
from jax_unlearn.audit.rates import roc_curve as roc_curve
from jax_unlearn.audit.rates import tpr_at_fpr as tpr_at_fpr
from jax_unlearn.audit.relearn import Recovery as Recovery
from jax_unlearn.audit.relearn import Relearn as Relearn
from jax_unlearn.audit.relearn import recovery as recovery
from jax_unlearn.audit.relearn import relearn_steps as relearn_steps
from jax_unlearn.audit.rmia import Rmia as Rmia
from jax_unlearn.audit.rmia import rmia as rmia
from jax_unlearn.audit.rmia import rmia_attack as rmia_attack
from jax_unlearn.audit.robustness import pgd as pgd
from jax_unlearn.audit.robustness import robust_accuracy as robust_accuracy
from jax_unlearn.audit.vulnerable import Ruli as Ruli
from jax_unlearn.audit.vulnerable import by_vulnerability as by_vulnerability
from jax_unlearn.audit.vulnerable import ruli_split as ruli_split

__all__ = ["BINS", "DIVISIONS", "Audit", "ClassDeviation", "Comparison", "Detail"]
__all__ += ["DeviationCounts", "DifferenceAttack", "Division", "Evidence", "Exposure"]
__all__ += ["FIGURES", "GROUPS", "Figure", "FigureCard", "ForgettingQuality"]
__all__ += ["KINDS", "GenerationMetrics", "GroupDeviation", "Grouped", "Gus", "Klom"]
__all__ += ["OF_GROUPS", "PROXIES", "MetricRow", "Metrics", "ModelOutputs", "Moments"]
__all__ += ["Pair", "PairedTest", "PartInputs", "PartLabels", "Poisoned", "Predictions"]
__all__ += ["Rate", "Recovery", "Relearn", "Rmia", "Roc", "Ruli", "ULira", "accuracy"]
__all__ += ["audit", "audit_by_group", "audit_table", "avg_gap", "bootstrap_interval"]
__all__ += ["by_confidence", "by_memorisation", "by_vulnerability", "check_metrics"]
__all__ += ["class_frechet", "clopper_pearson", "compare", "comparison_table"]
__all__ += ["deviation_by_class", "deviation_by_group", "deviation_counts"]
__all__ += ["difference_attack", "difference_features", "divided", "entropy"]
__all__ += ["entropy_mia_member_rate", "example_epsilon", "feature_moments"]
__all__ += ["forgetting_null", "forgetting_points", "forgetting_quality"]
__all__ += ["forgetting_score", "frechet_distance", "gaussian_score"]
__all__ += ["generation_metrics", "gradient_alignment", "group_table", "groups_record"]
__all__ += ["gus", "inception_features", "interclass_confusion", "klom", "klom_null"]
__all__ += ["language", "load_inception", "loss_mia_accuracy", "margins"]
__all__ += ["margins_from_probs", "memorisation", "memorisation_bins"]
__all__ += ["memorisation_proxy", "model_outputs", "modified_entropy", "paired_test"]
__all__ += ["per_sample_deviation", "pgd", "poison", "quantised", "recovery"]
__all__ += ["relearn_steps", "retain_exposure", "rmia", "rmia_attack"]
__all__ += ["robust_accuracy", "roc_auc", "roc_curve", "ruli_split", "svc_mia_efficacy"]
__all__ += ["to_record", "tow", "tow_mia", "tpr_at_fpr", "true_class_confidence"]
__all__ += ["true_class_loss", "u_lira", "unlearning_deviation", "unlearning_metrics"]


class _Callable(types.ModuleType):
    """A package that is also a function: `ju.audit(...)` is `ju.audit.audit(...)`."""

    __call__ = staticmethod(audit)


sys.modules[__name__].__class__ = _Callable
