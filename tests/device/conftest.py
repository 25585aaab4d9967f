import pytest

from device.apart import Apart


@pytest.fixture(scope="session")
def apart():
    """Runs a function of `device.jobs` by name where there is a pretended device."""
    other = Apart()
    yield other
    other.close()
