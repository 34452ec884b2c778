"""The report: results as a table and as one self-contained page; figures of a study."""

from jax_unlearn.report.draw import Drawing as Drawing
from jax_unlearn.report.draw import standalone as standalone
from jax_unlearn.report.draw.studies import ablation_bars as ablation_bars
from jax_unlearn.report.draw.studies import gamma_sweep as gamma_sweep
from jax_unlearn.report.draw.studies import generation_figure as generation_figure
from jax_unlearn.report.draw.studies import near_far as near_far
from jax_unlearn.report.draw.studies import rho_sweep as rho_sweep
from jax_unlearn.report.pages import render as render
from jax_unlearn.report.pages import write as write
from jax_unlearn.report.reading import check_results as check_results
from jax_unlearn.report.reading import load_results as load_results
from jax_unlearn.report.table import Cell as Cell
from jax_unlearn.report.table import Table as Table
from jax_unlearn.report.table import generation_table as generation_table
from jax_unlearn.report.table import main_table as main_table

__all__ = ["Cell", "Drawing", "Table", "ablation_bars", "check_results", "gamma_sweep"]
__all__ += ["generation_figure", "generation_table", "load_results", "main_table"]
__all__ += ["near_far", "render", "rho_sweep", "standalone", "write"]
