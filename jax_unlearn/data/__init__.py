"""Data sets, splits and batches: everything that stays on the host.

Where no source is named, the choice is ours.
"""

from jax_unlearn.data import queries as queries
from jax_unlearn.data.archives import from_npz as from_npz
from jax_unlearn.data.arrow import from_huggingface as from_huggingface
from jax_unlearn.data.arrow import from_table as from_table
from jax_unlearn.data.batches import Schedule as Schedule
from jax_unlearn.data.batches import epoch_indices as epoch_indices
from jax_unlearn.data.batches import supervised as supervised
from jax_unlearn.data.batches import take as take
from jax_unlearn.data.checks import check_ids as check_ids
from jax_unlearn.data.files import check_writable as check_writable
from jax_unlearn.data.files import read_file as read_file
from jax_unlearn.data.files import read_json as read_json
from jax_unlearn.data.files import write_atomic as write_atomic
from jax_unlearn.data.gaps import Gap as Gap
from jax_unlearn.data.gaps import distribution_gap as distribution_gap
from jax_unlearn.data.gaps import query_gaps as query_gaps
from jax_unlearn.data.keys import Named as Named
from jax_unlearn.data.keys import ids_of_keys as ids_of_keys
from jax_unlearn.data.keys import load_request as load_request
from jax_unlearn.data.lists import load_ids as load_ids
from jax_unlearn.data.loading import load as load
from jax_unlearn.data.long_tail import ClassGroups as ClassGroups
from jax_unlearn.data.long_tail import head_mid_tail as head_mid_tail
from jax_unlearn.data.long_tail import long_tailed_counts as long_tailed_counts
from jax_unlearn.data.manifests import load_manifest as load_manifest
from jax_unlearn.data.manifests import save_manifest as save_manifest
from jax_unlearn.data.pictures import from_folder as from_folder
from jax_unlearn.data.preprocess import Augment as Augment
from jax_unlearn.data.preprocess import PixelRange as PixelRange
from jax_unlearn.data.preprocess import as_floats as as_floats
from jax_unlearn.data.preprocess import channel_stats as channel_stats
from jax_unlearn.data.preprocess import compose as compose
from jax_unlearn.data.preprocess import pixel_range as pixel_range
from jax_unlearn.data.preprocess import random_crop as random_crop
from jax_unlearn.data.preprocess import random_flip as random_flip
from jax_unlearn.data.preprocess import with_preprocessing as with_preprocessing
from jax_unlearn.data.queries import Strategy as Strategy
from jax_unlearn.data.queries import queried as queried
from jax_unlearn.data.schedules import Phased as Phased
from jax_unlearn.data.schedules import every_k as every_k
from jax_unlearn.data.schedules import fcs_schedule as fcs_schedule
from jax_unlearn.data.schedules import forget_only as forget_only
from jax_unlearn.data.schedules import merged as merged
from jax_unlearn.data.schedules import phases as phases
from jax_unlearn.data.schedules import retain_only as retain_only
from jax_unlearn.data.schedules import scrub_schedule as scrub_schedule
from jax_unlearn.data.schedules import sequential as sequential
from jax_unlearn.data.schedules import zipped as zipped
from jax_unlearn.data.sources import Dataset as Dataset
from jax_unlearn.data.sources import Examples as Examples
from jax_unlearn.data.sources import assembled as assembled
from jax_unlearn.data.sources import check_examples as check_examples
from jax_unlearn.data.sources import digits as digits
from jax_unlearn.data.sources import fingerprint as fingerprint
from jax_unlearn.data.sources import with_columns as with_columns
from jax_unlearn.data.splits import Split as Split
from jax_unlearn.data.splits import digest as digest
from jax_unlearn.data.splits import forget_split as forget_split
from jax_unlearn.data.splits import given_split as given_split
from jax_unlearn.data.splits import holdout as holdout
from jax_unlearn.data.splits import to_ids as to_ids
from jax_unlearn.data.streams import Stream as Stream
from jax_unlearn.data.streams import from_source as from_source
from jax_unlearn.data.streams import read_labels as read_labels
from jax_unlearn.data.streams import streamed as streamed
from jax_unlearn.data.subsets import by_distance as by_distance
from jax_unlearn.data.subsets import confuse_classes as confuse_classes
from jax_unlearn.data.subsets import joined as joined
from jax_unlearn.data.subsets import retain_subset as retain_subset
from jax_unlearn.data.subsets import shrink as shrink
from jax_unlearn.data.subsets import subset as subset
from jax_unlearn.data.tfds_sets import from_tfds as from_tfds
from jax_unlearn.data.worst import Search as Search
from jax_unlearn.data.worst import capped_simplex as capped_simplex
from jax_unlearn.data.worst import worst_case as worst_case

__all__ = ["Augment", "ClassGroups", "Dataset", "Examples", "Gap", "Named", "Phased"]
__all__ += ["PixelRange", "Schedule", "Search", "Split", "Strategy", "Stream"]
__all__ += ["as_floats", "assembled", "by_distance", "capped_simplex", "channel_stats"]
__all__ += ["check_examples", "check_ids", "check_writable", "compose"]
__all__ += ["confuse_classes", "digest", "digits", "distribution_gap", "epoch_indices"]
__all__ += ["every_k", "fcs_schedule", "fingerprint", "forget_only", "forget_split"]
__all__ += ["from_folder", "from_huggingface", "from_npz", "from_source", "from_table"]
__all__ += ["from_tfds", "given_split", "head_mid_tail", "holdout", "ids_of_keys"]
__all__ += ["joined", "load", "load_ids", "load_manifest", "load_request"]
__all__ += ["long_tailed_counts", "merged", "phases", "pixel_range", "queried"]
__all__ += ["queries", "query_gaps", "random_crop", "random_flip", "read_file"]
__all__ += ["read_json", "read_labels", "retain_only", "retain_subset", "save_manifest"]
__all__ += ["scrub_schedule", "sequential", "shrink", "streamed", "subset"]
__all__ += ["supervised", "take", "to_ids", "with_columns", "with_preprocessing"]
__all__ += ["worst_case", "write_atomic", "zipped"]
