import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Models this small are slower on two threads, and the workers have one each."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
