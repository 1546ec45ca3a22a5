"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ROOT.parent / "shared" / "corpus"


def require_tool(name: str) -> str:
    """Path of an external program; skips the test where it is absent, fails where everything must run."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")
    if path is None:
        missing = f"{name} is not installed"
        if os.environ.get("UPSHIM_REQUIRE_ALL"):
            pytest.fail(missing)
        pytest.skip(missing)
    return path


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of real captures and payloads; it is private test data and not part of the project."""
    if not CORPUS.is_dir():
        pytest.skip("the corpus is not beside the project")
    return CORPUS


# The fixtures for users are there by themselves where upshim is installed; a bare checkout names them.
pytest_plugins = ["proxy_addons.pytest_plugin"]
