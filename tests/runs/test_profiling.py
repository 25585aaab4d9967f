"""What a run's time goes into: phases within phases, arms within a run."""

import json
from itertools import count

import pytest
import torch

from paperwalk import profiling
from paperwalk.models.decoder import Decoder, DecoderConfig
from paperwalk.training import TrainConfig, train


@pytest.fixture
def profile(monkeypatch, tmp_path):
    """Its file, and a clock that moves on by a second each time it is read."""
    monkeypatch.setenv(profiling.PROFILED, str(tmp_path / "profile"))
    ticks = count()
    monkeypatch.setattr(profiling.time, "perf_counter", lambda: next(ticks))
    return tmp_path / "profile"


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_phase_counts_its_own_time_without_what_is_within(profile):
    with profiling.profiled("one"):
        with profiling.phase("evaluation"), profiling.phase("generation"):
            pass
        with profiling.phase("evaluation"):
            pass
    # a second between any two looks at the clock: 3 without a phase, generation within one of two evaluations
    assert lines(profile) == [{"arm": "one", "seconds": {"other": 3, "evaluation": 3, "generation": 1}}]


def test_an_arm_that_fails_and_an_arm_within_an_arm_are_told_apart(profile):
    with pytest.raises(ZeroDivisionError), profiling.profiled("outer"), profiling.phase("forward"):
        with profiling.profiled("inner"), profiling.phase("data"):
            pass
        raise ZeroDivisionError
    inner, outer = lines(profile)
    assert inner["arm"] == "inner" and set(inner["seconds"]) == {"other", "data"}
    assert outer["arm"] == "outer" and set(outer["seconds"]) == {"other", "forward"}


def test_without_being_asked_nothing_is_written(monkeypatch, tmp_path):
    monkeypatch.delenv(profiling.PROFILED, raising=False)
    monkeypatch.chdir(tmp_path)
    with profiling.profiled("one"), profiling.phase("data"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_training_is_taken_apart(profile):
    def loss_fn(model, ids):
        return model(ids).sum(), ids.numel()

    model, batches = Decoder(DecoderConfig(9, 8, 1, 2, 2, 8, 8)), lambda step: [torch.ones(2, 4, dtype=torch.int64)]
    evaluate = lambda model: {"score": 1.0}
    with profiling.profiled("arm"):
        train(model, batches, loss_fn, TrainConfig(2, 1e-3), evaluate=evaluate, evaluate_every=1, progress=False)
    seconds = lines(profile)[0]["seconds"]
    assert set(seconds) == {"other", "data", "forward", "backward", "optimiser", "evaluation"}
    assert seconds["data"] == seconds["forward"] == seconds["backward"] == 2  # once a step


def test_the_table_adds_up():
    arms = [{"arm": "a", "seconds": {"forward": 3.0, "other": 1.0}}, {"arm": "longer", "seconds": {"data": 4.0}}]
    head, *rows, last = profiling.table(arms, 5.0).splitlines()
    assert head.split() == ["arm", "seconds", *profiling.PHASES, "other"]
    assert rows[0].split() == ["a", "4.0", "-", "75%", "-", "-", "-", "-", "25%"]
    assert rows[2].split() == ["all", "8.0", "50%", "38%", "-", "-", "-", "-", "12%"]
    assert "5.0 s" in last
