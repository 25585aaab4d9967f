"""What tests of several folders share."""

import os
import shutil

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium of this machine; without one the test is skipped, or fails if PAPERWALK_STRICT=1."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        (pytest.fail if os.environ.get("PAPERWALK_STRICT") == "1" else pytest.skip)("no Chromium found")
    return path
