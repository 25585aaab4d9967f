"""On how many threads a run's workers train."""

from types import SimpleNamespace

import pytest
import torch

from paperwalk import timing
from paperwalk.experiment import Experiment


@pytest.mark.parametrize("faster", [1, 3])
def test_the_faster_number_is_taken_and_the_setting_put_back(monkeypatch, faster):
    def seconds(step, device):
        step()
        return 1.0 if torch.get_num_threads() == faster else 2.0

    monkeypatch.setattr(timing, "seconds", seconds)
    before = torch.get_num_threads()
    assert timing.fastest_threads(3, budget=0) == faster
    assert torch.get_num_threads() == before


def test_one_core_has_nothing_to_choose(monkeypatch):
    monkeypatch.setattr(timing, "seconds", lambda *_: pytest.fail("measured"))
    assert timing.fastest_threads(1) == timing.fastest_threads(0) == 1


def test_a_run_keeps_to_its_choice(monkeypatch, tmp_path):
    def new(**parameters):
        experiment = Experiment.__new__(Experiment)
        experiment.p, experiment.folder = SimpleNamespace(**parameters), tmp_path
        return experiment

    asked = []
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(timing, "fastest_threads", lambda most: asked.append(most) or most)
    assert new(device="auto", workers=2).threads == 4
    monkeypatch.setattr(timing, "fastest_threads", lambda most: 1)
    assert new(device="auto", workers=2).threads == 4 and asked == [4]  # taken up again
    assert new(workers=2).threads is None
    (tmp_path / "threads").unlink()
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(timing, "fastest_threads", lambda most: most)
    assert new(device="auto", workers=1).threads == 2  # what the user set is the most
