"""Every notebook runs from a clean kernel, at a size that only shows that it does."""

from pathlib import Path

import nbclient
import nbformat
import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
TINY = {"EPOCHS": 1, "WIDTH": 4}
# Where a notebook has that parameter with that value.
FEWER = {
    "MODELS = 16": "MODELS = 8",
    "FORGET = 0.3": "FORGET = 0.1",
    "UNLEARN_EPOCHS = 2": "UNLEARN_EPOCHS = 1",
    "\nSTEPS = 40": "\nSTEPS = 4",
    "\nSTEPS = 100": "\nSTEPS = 4",
    "SAMPLING_STEPS = 20": "SAMPLING_STEPS = 2",
    "LIMIT = 200": "LIMIT = 5",
}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebook_runs_at_tiny_size(path):
    notebook = nbformat.read(path, as_version=4)
    (parameters,) = (
        cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())
    )
    assert all(f"{name} = " in parameters.source for name in TINY)
    for value, less in FEWER.items():
        parameters.source = parameters.source.replace(value, less)
    parameters.source += "".join(f"\n{name} = {value}" for name, value in TINY.items())
    client = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3")
    client.execute()
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in codes)
