"""The good files, written once; the made-up results of the report's tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "report"))

import pytest
from good_files import Files, write_all


@pytest.fixture(scope="session")
def good(tmp_path_factory) -> Files:
    """Return the good files; no test changes them."""
    return write_all(tmp_path_factory.mktemp("good"))
