"""Importing the package is light, and the core depends on nothing above it."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import jax_unlearn

ROOT = Path(jax_unlearn.__file__).parent
HEAVY = {
    "IPython",
    "equinox",
    "flax",
    "grain",
    "haiku",
    "jinja2",
    "matplotlib",
    "msgspec",
    "orbax",
    "pandas",
    "rich",
    "sklearn",
    "tensorflow",
    "tensorflow_datasets",
    "torch",
    "tyro",
}
CORE = [
    *(
        ROOT / f"{name}.py"
        for name in (
            "types",
            "errors",
            "_validate",
            "losses",
            "gradients",
            "harmonize",
            "leaves",
            "masks",
            "meta",
            "programs",
            "tables",
        )
    ),
    ROOT / "drivers" / "memory.py",
    *(
        file
        for folder in ("diffusion", "membership", "objectives", "weights", "methods")
        for file in sorted((ROOT / folder).rglob("*.py"))
    ),
]
ALLOWED = {"jax", "optax", "chex", "numpy"}
INSIDE = {
    "_validate",
    "cards",
    "averages",
    "contracts",
    "optimizers",
    "data",
    "diffusion",
    "language",
    "types",
    "errors",
    "losses",
    "gradients",
    "harmonize",
    "leaves",
    "masks",
    "membership",
    "meta",
    "objectives",
    "programs",
    "tables",
    "weights",
    "methods",
}


def test_importing_the_package_is_light():
    program = """
import json, sys
import jax, optax, chex, numpy
before = set(sys.modules)  # what jax and optax bring themselves
import jax_unlearn
print(json.dumps(sorted({m.split(".")[0] for m in set(sys.modules) - before})))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT.parent,
    )
    brought = set(json.loads(done.stdout))
    assert "jax_unlearn" in brought
    assert not brought & HEAVY
    third_party = brought - set(sys.stdlib_module_names) - {"jax_unlearn"}
    assert third_party <= {"jax", "jaxlib", "optax", "chex", "numpy", "scipy"}


def imports(file):
    """Return (module, whether at the top level) of every import of a file."""
    tree = ast.parse(file.read_text())
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names = [node.module]
            if node.module == "jax_unlearn":
                names = [f"jax_unlearn.{alias.name}" for alias in node.names]
        for name in names:
            yield name, id(node) in top


@pytest.mark.parametrize("file", CORE, ids=lambda f: f.relative_to(ROOT).as_posix())
def test_the_core_imports_only_arrays_and_itself(file):
    for name, _ in imports(file):
        parts = name.split(".")
        if parts[0] == "jax_unlearn":
            assert parts[1] in INSIDE, f"{file.name} imports {name}"
        else:
            known = parts[0] in ALLOWED or parts[0] in sys.stdlib_module_names
            assert known, f"{file.name} imports {name}"


def test_the_core_was_found():
    assert len(CORE) > 15
    assert all(file.is_file() for file in CORE)


def test_equations_do_not_know_methods():
    for file in CORE:
        layer = file.relative_to(ROOT).parts[0]
        for name, _ in imports(file):
            if layer in ("objectives", "weights") and name.startswith("jax_unlearn."):
                assert name.split(".")[1] not in ("methods", "masks", "harmonize")


def test_unknown_attributes_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'salun'"):
        _ = jax_unlearn.salun


def test_help_is_light():
    program = """
import json, sys
import jax, optax, chex, numpy
before = set(sys.modules)
from jax_unlearn.cli import main
try:
    main(["unlearn", "--help"])
except SystemExit:
    pass
print("\\n" + json.dumps(sorted(set(sys.modules) - before)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT.parent,
    )
    brought = set(json.loads(done.stdout.splitlines()[-1]))
    assert "tyro" in brought  # the help was made
    slow = {"matplotlib", "optuna", "pandas", "pyarrow", "scipy.stats", "sklearn"}
    assert not brought & slow
