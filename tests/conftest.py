"""What several test files share."""

from __future__ import annotations

import signal

import pytest

from fusemodel import compare
from fusemodel.report import Comparison, load_request


@pytest.fixture(scope="session")
def default_comparison() -> Comparison:
    """The comparison the library comes with, evaluated once."""
    return compare(load_request())


def pytest_configure() -> None:
    """Where a shell runs the tests in the background, they inherit deafness to Ctrl-C, and so would what they start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
