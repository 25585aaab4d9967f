"""Plans: counted on the models that the chapters train, at one with the chapters' figures and with counts by hand."""

import json
import math
from dataclasses import replace
from statistics import mean

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from chapters import definitions
from paperwalk import __main__ as cli
from paperwalk import evidence, plan, runs

# What a chapter's cost cell reads besides its own definitions.
GLOBALS = {"searchformer": {"GROUP": {"prompt": 3, "trace": 5, "plan": 3}}, "transformer_fam": {"FIRST": 258}}


def training(chapter, profile, **changed):
    return plan.TRAININGS[chapter](runs.profile_values(chapter, profile) | changed)


@pytest.fixture(scope="module", params=plan.TRAININGS)
def chapter(request):
    return request.param, definitions.load(request.param, **GLOBALS.get(request.param, {}))


@pytest.mark.parametrize("profile", runs.PROFILES)
def test_a_plan_agrees_with_the_chapters_own_table(chapter, profile):
    name, notebook = chapter
    theirs, ours = notebook.cost(profile), training(name, profile)
    with FakeTensorMode():
        parameters = ours.build().n_parameters
    left_out = 0
    if name == "searchformer":  # its table leaves out padding and whole cells, a row each of three matrices
        v = runs.profile_values(name, profile)
        left_out = 3 * v["d_model"] * (1 + v["size"] ** 2 * v["whole_cells"])
    assert parameters == theirs["parameters"] + left_out
    assert ours.tokens == pytest.approx(theirs["tokens" if "tokens" in theirs else "tokens read"], rel=1e-9)
    assert ours.written == theirs.get("tokens written", 0)


@pytest.mark.parametrize("rows", [1, 3])
def test_operations_are_those_of_a_count_by_hand(rows):
    t, v = training("goldfish", "ci"), runs.profile_values("goldfish", "ci")
    D, L, T = v["d_model"], v["n_layers"], v["text_tokens"]
    with FakeTensorMode():
        matrices = sum(w.numel() for w in t.build().parameters() if w.dim() == 2)
    products = 6 * matrices * rows * T  # 2 forward, 4 backward
    attention = (2 + 5) * 2 * rows * T * T * D * L  # products of T x T x D: 2 forward; backward 5, one of them again
    assert plan.count(t, rows).flops == products + attention


def test_memory_holds_the_state_and_grows_with_the_rows():
    t = training("goldfish", "laptop")
    counts = [plan.count(t, rows) for rows in (1, 2, 4, 8)]
    assert all(c.peak_bytes > plan.STATE_BYTES * c.parameters for c in counts)
    a, b, c, d = (c.peak_bytes for c in counts)
    logits = 4 * 96 * 2048  # bytes of a row's logits, which are alive at least twice
    assert d - c >= 4 * 2 * logits and d - c == pytest.approx(2 * (c - b), rel=0.1) and b > a


def test_autocast_saves_activations_in_half_precision():
    t = training("goldfish", "laptop")
    assert plan.count(replace(t, bf16=True), 8).peak_bytes < plan.count(t, 8).peak_bytes


def test_longest_inputs_take_more_memory():
    for name in ("transformer_fam", "searchformer"):
        t = training(name, "ci")
        assert plan.count(t, 2, longest=True).peak_bytes > plan.count(t, 2).peak_bytes


def test_a_micro_batch_fills_the_room_and_no_more():
    t = training("goldfish", "laptop", batch=64)
    room = plan.count(t, 16).peak_bytes + 1
    assert plan.largest_micro_batch(t, room) == (16, room - 1)
    assert plan.largest_micro_batch(t, 1e12)[0] == 64
    one = plan.count(t, 1).peak_bytes
    assert plan.largest_micro_batch(t, one - 1) == (0, one)


def quantities(rows):
    return {row.quantity: row.value for row in rows}


def test_hours_are_operations_over_the_peak_at_the_stated_share():
    one, other = (quantities(plan.plan("goldfish", "ci", "A100", mfu, 1)) for mfu in (0.5, 0.25))
    assert one["GPU-hours"] == pytest.approx(one["FLOPs"] / (0.5 * 312e12) / 3600)
    assert other["GPU-hours"] == pytest.approx(2 * one["GPU-hours"])
    assert one["FLOPs"] == plan.count(training("goldfish", "ci"), 1).flops * 8 * 20


def test_sharding_divides_the_state_and_not_the_hours():
    one, four = (quantities(plan.plan("goldfish", "ci", gpus=n)) for n in (1, 4))
    assert four["state a GPU"] == pytest.approx(one["state a GPU"] / 4)
    saved = one["state a GPU"] - four["state a GPU"]
    assert four["memory a GPU"] == pytest.approx(one["memory a GPU"] - saved)
    assert four["GPU-hours"] == one["GPU-hours"] and four["days"] == pytest.approx(one["days"] / 4)


def test_written_tokens_cost_two_operations_a_parameter_at_their_own_share():
    v = training("rest", "ci")
    have = quantities(plan.plan("rest", "ci"))
    trained = have["FLOPs"] / 0.4
    written = 2 * have["parameters"] * v.written / plan.SAMPLING_MFU
    assert have["GPU-hours"] == pytest.approx((trained + written) / 990e12 / 3600)
    assert (
        have["tokens sampled"] == 2 * have["samples a Grow"] * runs.defaults("rest")["max_length"]
    )  # two Grows, at the greatest length


@pytest.mark.parametrize("chapter", [*plan.TRAININGS, "legal_rag"])
def test_what_the_paper_says_has_a_place_and_a_row_of_the_plan(chapter):
    known = set(quantities(plan.plan(chapter, "ci")))
    for quantity, entry in plan.said(chapter).items():
        assert quantity in known
        assert set(entry) == {"paper", "where"} and entry["paper"] > 0 and entry["where"].strip()


def test_legal_rag_counts_the_calls_that_a_run_makes():
    have = quantities(plan.plan("legal_rag", "ci"))
    assert have["calls"] > 0 and have["tokens read"] > have["calls"] and have["price"] == 0
    assert have["tokens written"] <= have["calls"] * 16 * 4


def test_the_command_says_what_is_assumed_and_what_was_measured(capsys):
    assert cli.main(["plan", "goldfish", "--profile", "ci", "--gpu", "H200"]) == 0
    said = capsys.readouterr().out
    assert "ASSUMED: 40% of the 990 bfloat16 TFLOP/s of an H200" in said
    minutes = mean(result["wall_seconds"] for result in evidence.load("goldfish", "laptop")) / 60
    assert f"laptop: {minutes:.1f} minutes and " in said and "Extrapolated" in said


@pytest.mark.parametrize("wrong", [{"gpu": "Z80"}, {"mfu": 0}, {"mfu": 1.1}, {"mfu": math.nan}, {"gpus": 0}])
def test_bad_input_is_refused(wrong):
    with pytest.raises(runs.ParameterError, match=f"{next(iter(wrong))} = .*: must be "):
        plan.plan("goldfish", "ci", **wrong)


def test_counting_leaves_no_trace():
    before = torch.get_rng_state()
    plan.count(training("goldfish", "ci"), 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_launches_are_calls_that_compute():
    with plan.Launches() as launches:
        x = torch.ones(4, 4)  # 1: filled
        columns = x.T[:, :2].detach()  # views: none
        torch.empty(3)
        (x @ x)[:, :2].add_(columns).sum()  # 4: product, sum in place, sum
    assert launches.number == 4
    steps = {
        n: plan.count(plan.goldfish(runs.profile_values("goldfish", "ci") | {"n_layers": n}), 1) for n in (1, 2, 3)
    }
    assert steps[3].launches - steps[2].launches == steps[2].launches - steps[1].launches > 40  # each layer as many


def test_the_rate_of_launches_is_that_of_the_probe():
    probe = json.loads((runs.ROOT / "benchmarks/gpu/2026-11-26-h200/probe.json").read_text())
    assert pytest.approx(probe["launches_a_second"], rel=0.005) == plan.LAUNCH_RATE
