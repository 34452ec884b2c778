"""Run notebooks at full size and keep what they print: `python tests/notebooks.py 01`.

Written anew in each: badge and address, from [project.urls]; the kernel; the running
time, in processor time, so that a busy machine says what an idle one does.
"""

import os
import platform
import re
import resource
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import nbclient
import nbformat

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "notebooks"
SOURCE = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"][
    "Source"
]
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
COLAB = "https://colab.research.google.com/github"


def paths(*numbers):
    """Return the notebooks, or those whose names begin so."""
    found = sorted(FOLDER.glob("*.ipynb"))
    return [p for p in found if not numbers or p.name.startswith(numbers)]


def badge(path):
    """Return the first line of a notebook."""
    place = f"{SOURCE.removeprefix('https://github.com/')}/blob/main/notebooks"
    return f"[![Open in Colab]({BADGE})]({COLAB}/{place}/{path.name})"


def lasting(seconds):
    """Return a time in words."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.1f} minutes"


def processor():
    """Return the name of this machine's processor."""
    try:
        told = Path("/proc/cpuinfo").read_text()
        return re.findall(r"model name\s*: (.*)", told)[0].strip()
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def head(path, notebook, seconds):
    """Write badge, address, kernel and running time."""
    told = (
        f"*Running time: {lasting(seconds)} of one processor core ({processor()}, no "
        f"accelerator, jax {metadata.version('jax')}), measured by `python "
        f"tests/notebooks.py {path.name[:2]}`.*"
    )
    first, setup = notebook.cells[0], notebook.cells[1]
    first.source = re.sub(r"\A.*", lambda _: badge(path), first.source)
    first.source = re.sub(r"\*Running time: .*\*", lambda _: told, first.source)
    pattern = r"git\+https://\S+?(?=[\"\s]|$)"
    setup.source = re.sub(pattern, lambda _: f"git+{SOURCE}", setup.source)
    notebook.metadata["kernelspec"] = KERNEL
    # what only says when and where it ran
    notebook.metadata.pop("language_info", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        cell.id = f"{path.name[:2]}-{notebook.cells.index(cell):02}"


def run(path):
    """Run a notebook and write it back with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # how slow a busy machine compiles
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    how = {"timeout": 3600, "kernel_name": "python3", "coalesce_streams": True}
    client = nbclient.NotebookClient(notebook, **how)
    client.execute()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    head(path, notebook, seconds)
    nbformat.write(notebook, path)
    print(f"{path.name}: {lasting(seconds)}", flush=True)


if __name__ == "__main__":
    for one in paths(*sys.argv[1:]):
        run(one)
