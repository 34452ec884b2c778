"""Every public module says which names are its users', and every room repeats them."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
MODULES = [
    path
    for path in sorted((ROOT / "jax_unlearn").rglob("*.py"))
    if path.name == "__init__.py" or not path.name.startswith("_")
]
API = shlex.split(re.findall(r"pdoc (--.*)$", README, re.M)[0])  # as the README says


def listed(tree):
    """Return the names of `__all__` in the order of the file; None without one."""
    found = None
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        target = node.target if isinstance(node, ast.AugAssign) else target
        if isinstance(target, ast.Name) and target.id == "__all__":
            found = (found or []) + ast.literal_eval(node.value)
    return found


def bound(tree):
    """Return the names that a module defines, and those it imports for its users."""
    own, passed = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
        elif isinstance(node, ast.ImportFrom):
            own |= {alias.asname or alias.name for alias in node.names}
            passed |= {a.name for a in node.names if a.asname == a.name}
    return own, passed


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_lists_its_public_names_once(path):
    tree = ast.parse(path.read_text())
    names = listed(tree)
    if len(tree.body) == 1 and isinstance(tree.body[0], ast.Expr):
        return  # a folder of modules, with nothing of its own
    assert names is not None, f'write __all__ = ["…"] after the imports of {path.name}'
    assert len(set(names)) == len(names)
    own, passed = bound(tree)
    assert set(names) <= own
    missing = sorted(passed - set(names))
    assert not missing, f"add {missing} to __all__: imported as themselves for users"


def test_all_names_of_the_package_can_be_imported_from_it():
    names: dict = {}
    exec("from jax_unlearn import *", names)
    assert {"run", "methods", "audit", "Model", "zoo"} <= set(names)


@pytest.mark.filterwarnings("ignore:Error parsing type annotation")  # shown as written
def test_the_pages_of_the_api_show_every_public_name(tmp_path):
    pdoc = pytest.importorskip("pdoc")
    assert API[:5] == ["--math", "-d", "google", "-o", "api"]
    pdoc.render.configure(docformat="google", math=True)
    pdoc.pdoc(*API[5:], output_directory=tmp_path)
    pages = {
        ".".join(path.relative_to(tmp_path).with_suffix("").parts): path.read_text()
        for path in tmp_path.rglob("*.html")
    }
    del pages["index"]
    rooms = {"methods", "weights", "audit", "data", "cards", "lab", "drivers.guards"}
    assert {f"jax_unlearn.{room}" for room in rooms} < set(pages)
    for name, page in pages.items():
        for public in getattr(importlib.import_module(name), "__all__", ()):
            assert f'id="{public}"' in page or f">{public}<" in page, (name, public)
    assert "tex-mml-chtml" in pages["jax_unlearn.data"]  # what shows equations
    equations = [
        text for page in pages.values() for text in re.findall(r"(?s)\$\$.*?\$\$", page)
    ]
    assert len(equations) > 10
    torn = [text for text in equations if "<" in text]
    assert not torn, (
        "a line of an equation that begins with - or + is a list: write {} -"
    )
