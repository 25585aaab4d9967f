"""The pretended device refuses what CUDA refuses, lets pass what it lets pass, and counts what the host waits for."""

import pytest

pytestmark = pytest.mark.full

OPERATIONS = "add", "host first", "matmul", "in place", "cat", "embedding", "gather", "scalar index", "put", "where"


@pytest.mark.parametrize("name", [*OPERATIONS, "indices of the device"])
def test_tensors_of_both_devices_are_refused(apart, name):
    assert "on the same device" in apart("mixed", name)


def test_numpy_needs_a_copy(apart):
    assert "numpy" in apart("mixed", "numpy")


def test_what_cuda_allows(apart):
    apart("allowed")


def test_waits_are_counted(apart):
    assert apart("counted") == {
        **dict.fromkeys(("nothing", "to the device"), 0),
        **dict.fromkeys(("item", "float", "tolist", "cpu", "copy", "if", "nonzero", "mask"), 1),
    }


def test_a_failure_over_there_is_one_here(apart):
    with pytest.raises(AssertionError, match=r"Traceback(.|\n)*no_such"):
        apart("mixed", "no_such")
