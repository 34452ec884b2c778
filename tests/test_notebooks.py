"""Every notebook runs from a clean kernel, at a size that only shows that it does."""

from pathlib import Path

import nbclient
import nbformat
import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
TINY = {"EPOCHS": 2, "WIDTH": 4}
FEWER = {"MODELS": 8}  # where a notebook has that parameter


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebook_runs_at_tiny_size(path):
    notebook = nbformat.read(path, as_version=4)
    (parameters,) = (
        cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())
    )
    assert all(f"{name} = " in parameters.source for name in TINY)
    fewer = {k: v for k, v in FEWER.items() if f"{k} = " in parameters.source}
    values = {**TINY, **fewer}.items()
    parameters.source += "".join(f"\n{name} = {value}" for name, value in values)
    client = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3")
    client.execute()
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in codes)
