"""Training and generation on the pretended device: nothing of the host gets in, and a step waits once."""

import pytest

pytestmark = pytest.mark.full


@pytest.mark.parametrize("kept_there", [False, True], ids=["tokens counted here", "on the device"])
def test_a_step_waits_once(apart, kept_there):
    assert apart("tiny_steps", kept_there) == [1, 1, 1]


def test_training_is_that_of_the_cpu(apart):
    apart("same_as_on_the_cpu")


def test_a_loss_that_is_not_finite_leaves_the_weights(apart):
    apart("not_finite")


@pytest.mark.parametrize("steps", ["eager", "fixed"])
@pytest.mark.parametrize("method", ["greedy", "sample", "beam"])
@pytest.mark.parametrize("kind", ["decoder", "seq2seq"])
def test_generation_is_that_of_the_cpu(apart, kind, method, steps):
    apart("generated", kind, method, steps)
