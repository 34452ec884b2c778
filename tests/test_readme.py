"""What the README shows is true: its snippet runs, its commands exist."""

import re
from pathlib import Path

import jax
import numpy as np

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_snippet_runs_as_written_and_changes_the_model():
    (snippet,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict = {}
    exec(compile(snippet, "README.md", "exec"), names)
    state, params = names["state"], names["params"]
    assert int(state.step) == len(names["batches"])
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), state.params, params)
    assert all(value > 0 for value in jax.tree.leaves(moved))


def test_the_two_commands_are_shown():
    assert "pip install -e . && jax-unlearn\n" in README
    assert 'pip install -e ".[test]" && pytest\n' in README
