"""What several test files share."""

from __future__ import annotations

import pytest

from fusemodel import compare
from fusemodel.report import Comparison, load_request


@pytest.fixture(scope="session")
def default_comparison() -> Comparison:
    """The comparison the library comes with, evaluated once."""
    return compare(load_request())
