"""Every notebook runs at a small size, and its last words are true of what it shows."""

import itertools
import os
import re

import nbclient
import nbformat
import pytest

import notebooks

# What parameters are in these tests, where a notebook has them.
SMALL = {
    "EPOCHS": 1,
    "WIDTH": 4,
    "MODELS": 1,
    "RETRAINS": 3,
    "UNLEARN_EPOCHS": 1,
    "TIMESTEPS": 20,
    "SAMPLING_STEPS": 2,
    "LIMIT": 3,
    "USERS": 20,
    "STEPS": 6,
    "DRAWS": 2,
}
OWN = {"04": {"MODELS": 8}, "07": {"STEPS": 33}}
OWN |= {"09": {"WIDTH": 8, "LAYERS": 1}}
# Networks that compile in a moment, in place of those that a notebook shows.
LIGHTER = {
    "ju.zoo.SmallCNN(10, width=WIDTH, rngs=rngs)": (
        "ju.zoo.MLP(10, in_features=64, hidden=(32,), rngs=rngs)"
    ),
    "--network small_cnn --width $WIDTH": "--network mlp",
    "ju.zoo.UNet(10, block_out_channels=(WIDTH, 2 * WIDTH), rngs=rngs)": (
        "_Denoiser(rngs=rngs)"
    ),
    "default_attacks()": "default_attacks()[:2]",
    '"base.jsonl": names[16:]': '"base.jsonl": names[16:32]',
}
# Commands in the kernel that is there, not in processes of their own.
BEGIN = """
import jax.numpy as _jnp
from flax import nnx as _nnx


class _Denoiser(_nnx.Module):
    def __init__(self, *, rngs):
        self.classes = _nnx.Embed(11, 8, rngs=rngs)
        self.inner = _nnx.Linear(64 + 8 + 1, 32, rngs=rngs)
        self.outer = _nnx.Linear(32, 64, rngs=rngs)

    def __call__(self, inputs, *, train=False):
        x, t, c = inputs
        pixels, time = x.reshape(len(x), -1), t[:, None] / 20
        parts = [pixels, time.astype(x.dtype), self.classes(c)]
        hidden = _nnx.relu(self.inner(_jnp.concatenate(parts, -1)))
        return self.outer(hidden).reshape(x.shape)


def _commands(script):
    import os
    import shlex

    from jax_unlearn.cli import main

    for line in script.replace("\\\\\\n", " ").strip().splitlines():
        name, *words = shlex.split(os.path.expandvars(line))
        if name != "jax-unlearn" or ">" in words:
            continue
        try:
            main(words)
        except SystemExit as end:
            assert not end.code, line
"""
PATHS = notebooks.paths()


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """Return what runs all notebooks in one kernel, each of which finds it empty."""
    folder = tmp_path_factory.mktemp("notebooks")
    where = {"resources": {"metadata": {"path": str(folder)}}}
    how = {"timeout": 300, "kernel_name": "python3", **where}
    client = nbclient.NotebookClient(nbformat.v4.new_notebook(), **how)
    with pytest.MonkeyPatch.context() as patch:
        # one device, as a reader has; programs of one notebook serve the others
        flags = re.sub(r"--xla_force_host\S*", "", os.environ["XLA_FLAGS"])
        patch.setenv("XLA_FLAGS", flags)
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder / "programs"))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
        client.execute(cleanup_kc=False)
    yield client
    client._cleanup_kernel()


def parameters(notebook):
    """Return the one cell of parameters."""
    cells = notebook.cells
    (found,) = (c for c in cells if "parameters" in c.metadata.get("tags", ()))
    return found


def codes(notebook):
    """Return the cells of code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(notebook):
    """Return all text that a notebook shows."""
    told = []
    for cell in codes(notebook):
        for output in cell.outputs:
            data = output.get("data", {})
            told += [output.get("text", ""), data.get("text/plain", "")]
            told += [data.get("text/markdown", "")]
    return "\n".join(told)


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def path(request):
    """Return the path of a notebook."""
    return request.param


@pytest.fixture
def notebook(path):
    """Return a notebook as it is stored."""
    return nbformat.read(path, as_version=4)


def test_the_nine_are_there():
    assert [path.name[:2] for path in PATHS] == [f"{n:02}" for n in range(1, 10)]


def test_it_runs_at_small_size(path, notebook, client):
    given = parameters(notebook)
    small = {**SMALL, **OWN.get(path.name[:2], {})}
    # where they stand: a later line of the cell hands them to the commands
    names = "|".join(small)
    given.source, count = re.subn(
        rf"^({names}) = \S+",
        lambda found: f"{found[1]} = {small[found[1]]}",
        given.source,
        flags=re.MULTILINE,
    )
    assert count
    for cell in codes(notebook):
        for shown, light in LIGHTER.items():
            cell.source = cell.source.replace(shown, light)
        if cell.source.startswith("%%bash\n"):
            cell.source = f"_commands({cell.source.removeprefix('%%bash')!r})"
    begin = nbformat.v4.new_code_cell("%reset -f\n" + BEGIN)
    notebook.cells.insert(0, begin)
    client.nb = notebook
    client.reset_execution_trackers()
    client.execute(cleanup_kc=False)
    assert all(cell.execution_count for cell in codes(notebook))


def test_its_head_says_where_it_opens_and_how_long_it_takes(path, notebook):
    first, setup = notebook.cells[:2]
    assert first.source.startswith(notebooks.badge(path) + "\n\n# ")
    told = re.findall(
        r"\*Running time: [\d.]+ (?:seconds|minutes) of .*\*", first.source
    )
    assert len(told) == 1
    assert f"git+{notebooks.SOURCE}\n" in setup.source
    assert notebook.metadata["kernelspec"] == notebooks.KERNEL


def test_its_outputs_are_kept_without_warnings(notebook):
    assert all(cell.execution_count for cell in codes(notebook))
    outputs = [output for cell in codes(notebook) for output in cell.outputs]
    assert outputs
    for output in outputs:
        assert output.output_type != "error"
        assert output.get("name") != "stderr"
    assert "Warning" not in printed(notebook)
    assert "/tmp/" not in printed(notebook)


def test_its_links_lead_somewhere_from_colab_too(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for link in re.findall(r"\]\(([^)\s]+)\)", cell.source):
                assert link.startswith("https://"), link
                _, own, file = link.partition(f"{notebooks.SOURCE}/blob/main/")
                assert not own or (notebooks.ROOT / file).exists(), link


def test_every_figure_has_words_and_the_last_ones_are_true(notebook):
    cells = notebook.cells
    for cell, after in itertools.pairwise(cells):
        outputs = cell.get("outputs", ())
        if any("image/png" in output.get("data", {}) for output in outputs):
            assert after.cell_type == "markdown"
    *_, last = cells
    title, words = last.source.rsplit("## Conclusion\n", 1)
    del title
    assert len(words.split()) > 40
    said = printed(notebook)
    for number in re.findall(r"(?<![\w.])\d+\.\d+(?![\w.]*\d)", words):
        assert number in said, number
