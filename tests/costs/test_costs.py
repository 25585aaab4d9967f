"""Plans: counted on the models that the chapters train, at one with the chapters' figures and with counts by hand."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils.flop_counter import FlopCounterMode

from paperwalk import __main__ as cli
from paperwalk import costs, evidence, runs
from paperwalk.models import pretrained

TRAINED = [name for name in runs.chapters() if costs.training_of(name, runs.profile_values(name, "ci"))]


def training(chapter, profile, **changed):
    return costs.training_of(chapter, runs.profile_values(chapter, profile) | changed)


@pytest.mark.parametrize("chapter", TRAINED)
def test_the_chapters_table_is_made_of_the_same_counts(chapter):
    table = costs.table(chapter, lambda v: costs.training_of(chapter, vars(v)))
    assert list(table.index) == list(runs.PROFILES)
    for profile in runs.PROFILES:
        ours = training(chapter, profile)
        with FakeTensorMode():
            parameters = ours.build().n_parameters
        assert table.loc[profile, "parameters"] == f"{parameters:,.3g}"
        assert table.loc[profile, "tokens"] == f"{ours.tokens:,.3g}"


@pytest.mark.parametrize("rows", [1, 3])
def test_operations_are_those_of_a_count_by_hand(rows):
    t, v = training("goldfish", "ci"), runs.profile_values("goldfish", "ci")
    D, L, T = v["d_model"], v["n_layers"], v["text_tokens"]
    with FakeTensorMode():
        matrices = sum(w.numel() for w in t.build().parameters() if w.dim() == 2)
    products = 6 * matrices * rows * T  # 2 forward, 4 backward
    attention = (2 + 5) * 2 * rows * T * T * D * L  # products of T x T x D: 2 forward; backward 5, one of them again
    assert costs.count(t, rows).flops == products + attention


@pytest.mark.parametrize("chapter", TRAINED)
def test_operations_and_memory_are_those_of_torchs_own_counters(chapter):
    t = training(chapter, "ci")
    with FakeTensorMode():
        model, inputs = t.build(), t.inputs(3, False)
        memory, flops = MemTracker(), FlopCounterMode(display=False, custom_mapping=costs.ATTENTION)
        memory.track_external(model, *inputs)
        with flops, memory, costs.Meter() as ours:
            ours._add(sum(x.untyped_storage().nbytes() for x in (*model.parameters(), *model.buffers(), *inputs)))
            t.loss(model, *inputs).backward()
    assert ours.flops == flops.get_total_flops() > 0
    assert ours.peak == sum(snapshot["Total"] for snapshot in memory.get_tracker_snapshot("peak").values()) > 0


def test_memory_holds_the_state_and_grows_with_the_rows():
    t = training("goldfish", "laptop")
    counts = [costs.count(t, rows) for rows in (1, 2, 4, 8)]
    assert all(c.peak_bytes > costs.STATE_BYTES * c.parameters for c in counts)
    a, b, c, d = (c.peak_bytes for c in counts)
    logits = 4 * 96 * 2048  # bytes of a row's logits, which are alive at least twice
    assert d - c >= 4 * 2 * logits and d - c == pytest.approx(2 * (c - b), rel=0.1) and b > a


def test_autocast_saves_activations_in_half_precision():
    t = training("goldfish", "laptop")
    assert costs.count(replace(t, bf16=True), 8).peak_bytes < costs.count(t, 8).peak_bytes


def test_longest_inputs_take_more_memory():
    for name in ("transformer_fam", "searchformer"):
        t = training(name, "ci")
        assert costs.count(t, 2, longest=True).peak_bytes > costs.count(t, 2).peak_bytes


def test_a_micro_batch_fills_the_room_and_no_more():
    t = training("goldfish", "ci", batch=64)
    room = costs.count(t, 16).peak_bytes + 1
    one = costs.count(t, 1).peak_bytes
    for guess in (1, 16, 1e9):
        assert costs.largest_micro_batch(t, room, guess) == (16, room - 1)
        assert costs.largest_micro_batch(t, 1e12, guess)[0] == 64
        assert costs.largest_micro_batch(t, one - 1, guess) == (0, one)


def quantities(rows):
    return {row.quantity: row.value for row in rows}


def test_hours_are_operations_over_the_peak_at_the_stated_share():
    one, other = (quantities(costs.plan("goldfish", "ci", "A100", mfu, 1)) for mfu in (0.5, 0.25))
    assert one["GPU-hours"] == pytest.approx(one["FLOPs"] / (0.5 * 312e12) / 3600)
    assert other["GPU-hours"] == pytest.approx(2 * one["GPU-hours"])
    assert one["FLOPs"] == costs.count(training("goldfish", "ci"), 1).flops * 8 * 20


def test_sharding_divides_the_state_and_not_the_hours():
    one, four = (quantities(costs.plan("goldfish", "ci", gpus=n)) for n in (1, 4))
    assert four["state a GPU"] == pytest.approx(one["state a GPU"] / 4)
    saved = one["state a GPU"] - four["state a GPU"]
    assert four["memory a GPU"] == pytest.approx(one["memory a GPU"] - saved)
    assert four["GPU-hours"] == one["GPU-hours"] and four["days"] == pytest.approx(one["days"] / 4)


def test_written_tokens_cost_two_operations_a_parameter_at_their_own_share():
    v = training("rest", "ci")
    have = quantities(costs.plan("rest", "ci"))
    trained = have["FLOPs"] / 0.4
    written = 2 * have["parameters"] * v.written / costs.SAMPLING_MFU
    assert have["GPU-hours"] == pytest.approx((trained + written) / 990e12 / 3600)
    assert (
        have["tokens sampled"] == 2 * have["samples a Grow"] * runs.defaults("rest")["max_length"]
    )  # two Grows, at the greatest length


@pytest.mark.parametrize("chapter", [c for c in runs.chapters() if costs.said(c)])
def test_what_the_paper_says_has_a_place_and_a_row_of_the_plan(chapter):
    known = set(quantities(costs.plan(chapter, "ci")))
    for quantity, entry in costs.said(chapter).items():
        assert quantity in known
        assert set(entry) == {"paper", "where"} and entry["paper"] > 0 and entry["where"].strip()


SLOW = {"transformer_fam": pytest.mark.full}  # half a minute: 24,000 launches a step
PAPERS = [pytest.param(chapter, marks=SLOW.get(chapter, ())) for chapter in runs.chapters()]


def arbitrary(texts, batch=64):
    """Unit vectors, at once. A plan counts the calls, whatever these find; encoding all records takes minutes."""
    vectors = np.random.default_rng(0).normal(size=(len(texts), 384)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("chapter", PAPERS)
def test_the_papers_own_scale_is_costed_and_not_run(chapter, monkeypatch):
    monkeypatch.setattr(pretrained, "embed", arbitrary)
    with pytest.raises(runs.ParameterError, match=f"dry_run = true: {chapter} at paper is costed, not run"):
        runs.execute(chapter, "paper", 0, timeout=60)
    assert {"GPU-hours", "hours"} & set(quantities(costs.plan(chapter, "paper")))


def test_legal_rag_counts_the_calls_that_a_run_makes(monkeypatch):
    costs._drawn_up_calls.cache_clear()
    monkeypatch.setattr(runs, "checkpoint_dir", lambda *_: pytest.fail("a run that goes on would note what is read"))
    of_a_run = lambda: [os.environ.get(name) for name in ("PAPERWALK_SOURCES", "PAPERWALK_ROOT")]
    before = of_a_run()
    have = quantities(costs.plan("legal_rag", "ci"))
    assert have["calls"] > 0 and have["tokens read"] > have["calls"] and have["price"] == 0
    assert have["tokens written"] <= have["calls"] * 16 * 4
    assert of_a_run() == before  # what is read afterwards is not noted as if the plan had read it


def measured(seed, seconds, profile="evening", complete=True):
    meta = {"profile": profile, "seed": seed, "complete": complete, "wall_seconds": seconds}
    meta |= {"peak_memory_bytes": 2e9, "cores": 2, "device": "a processor"}
    return evidence.Run(Path(f"{profile}-seed{seed}.parquet"), {}, meta)


def test_the_command_says_what_is_assumed_and_what_was_measured(capsys, monkeypatch):
    known = [measured(100, 60), measured(101, 120), measured(102, 6, complete=False)]
    monkeypatch.setattr(evidence, "load", lambda chapter, scale, root=None: known if scale == "evening" else [])
    monkeypatch.setattr(evidence, "superseded", lambda chapter, root=None: [])
    assert cli.main(["plan", "goldfish", "--profile", "ci", "--gpu", "H200"]) == 0
    said = capsys.readouterr().out
    assert "ASSUMED: 40% of the 990 bfloat16 TFLOP/s of an H200" in said
    assert "evening: 1.5 minutes and 2.0 GB, " in said and "mean of 2 seeds on 2 cores (a processor)" in said
    assert "Extrapolated: all the rest. This profile has not been run." in said


def test_what_superseded_runs_took_is_said_where_there_is_nothing_newer(monkeypatch):
    old, new = [measured(0, 300, "laptop")], [measured(100, 60)]
    monkeypatch.setattr(evidence, "superseded", lambda chapter, root=None: old)
    monkeypatch.setattr(evidence, "load", lambda chapter, scale, root=None: new if scale == "evening" else [])
    assert [line.split(" and ")[0] for line in costs.measured("goldfish")] == [
        "laptop: 5.0 minutes",
        "evening: 1.0 minutes",
    ]
    monkeypatch.setattr(evidence, "load", lambda chapter, scale, root=None: [])
    assert [line.split(" and ")[0] for line in costs.measured("goldfish")] == ["laptop: 5.0 minutes"]


@pytest.mark.parametrize("wrong", [{"gpu": "Z80"}, {"mfu": 0}, {"mfu": 1.1}, {"mfu": math.nan}, {"gpus": 0}])
def test_bad_input_is_refused(wrong):
    with pytest.raises(runs.ParameterError, match=f"{next(iter(wrong))} = .*: must be "):
        costs.plan("goldfish", "ci", **wrong)


def test_counting_leaves_no_trace():
    before = torch.get_rng_state()
    costs.count(training("goldfish", "ci"), 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_launches_are_calls_that_compute():
    with costs.Meter() as meter:
        x = torch.ones(4, 4)  # 1: filled
        columns = x.T[:, :2].detach()  # views: none
        torch.empty(3)
        (x @ x)[:, :2].add_(columns).sum()  # 4: product, sum in place, sum
    assert meter.launches == 4
    steps = {n: costs.count(training("goldfish", "ci", n_layers=n), 1) for n in (1, 2, 3)}
    assert steps[3].launches - steps[2].launches == steps[2].launches - steps[1].launches > 40  # each layer as many


def test_the_rate_of_launches_is_that_of_the_probe():
    probe = json.loads((runs.ROOT / "benchmarks/gpu/2026-11-26-h200/probe.json").read_text())
    assert pytest.approx(probe["launches_a_second"], rel=0.005) == costs.LAUNCH_RATE
