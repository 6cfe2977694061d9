"""Fixtures of the report tests. The helpers beside this file have names of their own, whatever the import mode."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import report_browser
import report_results


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[report_browser.Browser]:
    """Headless Chromium with a fresh profile."""
    if reason := report_browser.missing():
        pytest.skip(reason)
    opened = report_browser.Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one result of each command, as a user makes it."""
    return report_results.write_results(tmp_path_factory.mktemp("results"))
