"""The definitions of the Searchformer notebook, taken out of it and tested on tiny cases."""

import math
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from chapters.definitions import load
from paperwalk import evidence
from paperwalk.kernels import astar as A
from paperwalk.papers.searchformer import checks, released_code


@pytest.fixture(scope="module", params=[True, False], ids=["whole cells", "the paper's tokens"])
def notebook(request):
    book = load("searchformer", device=torch.device("cpu"))
    space = book.namespace
    space["p"].whole_cells = request.param
    words = A.vocabulary("maze", space["p"].size)
    cell = len(words)
    space |= {"words": words, "BOS": 0, "EOS": 1, "DIGIT": words.index("0"), "CELL": cell, "PLAN": words.index("plan")}
    space |= {"PAD": cell + space["p"].size ** 2 * request.param, "GROUP": {"prompt": 3, "trace": 5, "plan": 3}}
    space["tasks"] = A.generate("maze", space["p"].size, 30, 0, deterministic=False)
    space["test_set"] = space["tasks"]
    return SimpleNamespace(**space)


@pytest.mark.parametrize("size", [3, 6, 11])
def test_the_inline_astar_equals_the_library(notebook, size):
    for task in A.generate("maze", size, 20, 1):
        log, plan = notebook.astar(task.layout)
        assert " ".join(f"{kind} {x} {y} c{g} c{h}" for kind, x, y, g, h in log) == " ".join(task.trace)
        assert " ".join(f"plan {x} {y}" for x, y in plan) == " ".join(task.plan)


def test_the_inline_astar_says_when_there_is_no_way(notebook):
    log, plan = notebook.astar(A.Maze(3, (0, 0), (2, 2), ((0, 1), (1, 0))))
    assert plan is None and log == [("create", 0, 0, 0, 4), ("close", 0, 0, 0, 4)]


def test_all_tiny_mazes_are_there_once():
    mazes = list(checks.tiny_mazes(2))
    assert len(mazes) == len({(m.start, m.goal, m.walls) for m in mazes})
    # neighbours (8 ordered pairs): any walls do; opposite corners (4 pairs): not both other cells may be walls
    assert len(mazes) == 8 * 4 + 4 * 3


def test_spelling_undoes_encoding(notebook):
    for part in ("prompt", "trace", "plan"):
        encoded = notebook.encode(notebook.tasks, part)
        assert [notebook.spell(ids.tolist()) for ids in encoded] == [getattr(task, part) for task in notebook.tasks]
        assert all(ids.max() < notebook.PAD for ids in encoded)


def test_a_real_search_is_read_as_valid_and_optimal(notebook):
    plans, traces = (notebook.encode(notebook.tasks, part) for part in ("plan", "trace"))
    for task, trace, plan in zip(notebook.tasks, traces, plans):
        told = notebook.read(task, [*trace, *plan, 1])
        assert told == notebook.Rollout("optimal", len(task.plan) // 3 - 1, len(task.trace), None)
        assert notebook.read(task, [*trace, *plan]).plan == "invalid"  # no end
        assert notebook.read(task, [*trace[:-1], *plan, 1]).fault is not None
        assert notebook.read(task, [*plan, 1]).length == 0
        assert notebook.read(task, [notebook.PAD, 1]).plan == "invalid"


def test_the_loss_weighs_every_sequence_alike(notebook):
    V = notebook.PAD + 1
    logits = torch.randn(2, 5, V, dtype=torch.float64)
    target = torch.tensor([[0, 3, 4, 1, notebook.PAD, notebook.PAD], [0, 5, 3, 3, 4, 1]])
    model = lambda source, ids, padding: logits
    total, count = notebook.loss_fn(model, (torch.zeros(2, 3).long(), target))
    by_hand = 0.0
    for row, wanted in enumerate(([3, 4, 1], [5, 3, 3, 4, 1])):
        scores = logits[row].tolist()
        nll = [math.log(sum(map(math.exp, scores[t]))) - scores[t][token] for t, token in enumerate(wanted)]
        by_hand += sum(nll) / len(nll)
    assert count == 2 and total.item() == pytest.approx(by_hand, rel=1e-5)


def test_batches_are_padded_alike_and_drawn_again_the_same(notebook):
    parts = [notebook.encode(notebook.tasks, part) for part in ("prompt", "trace", "plan")]
    pairs = notebook.pairs_of(*parts)
    for step in (0, 7, 8):
        source, target = notebook.batch_of(pairs, step)
        again = notebook.batch_of(pairs, step)
        assert torch.equal(source, again[0]) and torch.equal(target, again[1])
        assert len(source) == len(target) == notebook.p.batch and (target[:, 0] == 0).all()
        for row in target.tolist():
            assert row.index(1) + 1 + row.count(notebook.PAD) == len(row)
    assert not torch.equal(notebook.batch_of(pairs, 0)[1], notebook.batch_of(pairs, 1)[1])


def test_lengths_are_compared_maze_by_maze(notebook):
    space = notebook.search_scores.__globals__
    space["rivals"] = {"mean": [100.0, 50.0], "best": [80.0, 50.0], "low_h": [90.0, 50.0], "perfect": [50.0, 25.0]}
    R = notebook.Rollout
    rollouts = [R("optimal", 4, 120, None), R("optimal", 4, 60, "not open"), R("suboptimal", 6, 30, None)]
    rollouts += [R("optimal", 4, 0, "syntax"), R("invalid", 0, 40, "wall")]  # a plan without a trace has no length
    out = notebook.search_scores(0, rollouts)
    assert out["valid"] == pytest.approx(2 / 5) and out["valid_optimal"] == pytest.approx(1 / 3)
    assert out["ilr_optimal"] == pytest.approx(100 / 90) and out["ilr_solved"] == pytest.approx(100 / 70)
    lengths = {"ratio": 0.9, "ratio_valid": 1.2, "ratio_faulty": 0.6, "ratio_not_open": 0.6}
    lengths |= {"vs_best": 90 / 80, "vs_low_h": 1.0, "vs_perfect": 1.8}
    lengths |= {"vs_best_valid": 1.5, "vs_low_h_valid": 120 / 90, "vs_perfect_valid": 2.4}
    assert {m.removeprefix("length_"): v for m, v in out.items() if m.startswith("length_")} == pytest.approx(lengths)
    nothing = notebook.search_scores(1, [R("invalid", 0, 40, None)])
    assert nothing == {"ilr_solved": 0, "ilr_optimal": 0, "valid": 1}  # and no length
    every = [rollouts[:3] + rollouts[4:], [R("optimal", 3, 60, None)]]
    of_claims = {claim["measure"] for claim in evidence.claims("searchformer") if "measure" in claim}
    assert {m for m in of_claims if m.startswith(("valid", "ilr", "length"))} <= set(out)
    assert notebook.by_fault(every) == {"valid": [2, 1.2], "not open": [1, 0.6]}  # of optimal plans only


def test_plans_are_scored_maze_by_maze(notebook):
    R = notebook.Rollout
    sampled = [R("optimal", 4, 0, None), R("suboptimal", 8, 0, None), R("invalid", 2, 0, None)]
    sampled.append(sampled[0])
    out = notebook.plan_scores(4, R("suboptimal", 6, 0, None), sampled)
    assert out == {"optimal": False, "any_optimal": True, "sample_optimal": 0.5, "swc": 2.5 / 4}
    none = notebook.plan_scores(4, R("optimal", 4, 0, None), sampled[1:3])
    assert none == {"optimal": True, "any_optimal": False, "sample_optimal": 0, "swc": 0.25}


def test_a_task_has_one_name_in_every_run(notebook):
    names = notebook.names_of(notebook.tasks)
    assert len(set(names)) == len(names) and names[3:5] == notebook.names_of(notebook.tasks[3:5])


def test_logs_that_are_wrong_are_refused_and_of_every_kind():
    kinds = set()
    for task in A.generate("maze", 7, 20, 3):
        for what, log in checks.wrong_ones(task):
            kinds.add(what)
            assert not A.is_valid_trace(task.layout, list(chain(*log)))
    assert kinds == {"a create dropped", "a cost off by one", "a wall entered", "a close out of order"}


def test_a_swapped_sequence_keeps_its_plan_and_has_the_trace_of_another_maze(notebook):
    space = notebook.sequences.__globals__
    space["seen_by"] = {"fixed": notebook.tasks, "coin": notebook.tasks}
    arm = notebook.Arm("", "swapped", mazes=10)
    own, swapped = notebook.sequences(notebook.Arm("", mazes=10)), notebook.sequences(arm)
    spelled = lambda pairs: [tuple(notebook.spell(part.tolist()[1:-1]) for part in pair) for pair in pairs]
    for i, task in enumerate(notebook.tasks[:10]):
        other = notebook.tasks[(i + 1) % 10]
        assert spelled(own)[i] == (task.prompt, task.trace + task.plan)
        assert spelled(swapped)[i] == (task.prompt, other.trace + task.plan)
        assert other.prompt != task.prompt
    for source, target in own:
        assert (source[0], source[-1], target[0], target[-1]) == (0, 1, 0, 1)  # bos and eos around both


def test_bootstrapping_takes_the_shortest_optimal_accepted_rollout(notebook, monkeypatch):
    space = notebook.self_improved.__globals__
    monkeypatch.setitem(space, "boot", notebook.tasks[:3])
    P, R = notebook.PLAN, notebook.Rollout
    rollouts = [
        [(R("optimal", 2, 20, None), [20, 20, 20, 20, P, 8, 1]), (R("optimal", 2, 10, "wall"), [20, 20, P, 9, 1])],
        [(R("suboptimal", 4, 5, None), [20, P, 8, 1]), (R("invalid", 0, 0, None), [P, 8])],
        [(R("optimal", 2, 90, None), [5] * 9 + [P, 6, 1])],  # longer than what is there: the paper takes it
    ]
    monkeypatch.setitem(space, "rollouts_of", lambda model, tasks, n: rollouts)
    start = lambda: ([np.array([3] * 5) for _ in range(3)], [np.array([P, 4]) for _ in range(3)])
    traces, plans = start()
    done = notebook.self_improved()(None, traces, plans)["renewed"]
    assert [list(t) for t in traces] == [[20, 20], [3] * 5, [5] * 9]
    assert [list(t) for t in plans] == [[P, 9], [P, 4], [P, 6]]
    assert done == dict(zip(notebook.names_of(notebook.tasks[:3]), (1, 0, 1)))
    traces, plans = start()
    notebook.self_improved(lambda r: r.fault is None)(None, traces, plans)
    assert list(traces[0]) == [20] * 4 and list(plans[0]) == [P, 8]


def test_lucky_traces_are_never_longer_and_still_searches(notebook, monkeypatch):
    monkeypatch.setitem(notebook.lucky.__globals__, "boot", notebook.tasks)
    before = notebook.encode(notebook.tasks, "trace")
    traces = list(before)
    notebook.lucky(None, traces, None)
    assert all(len(new) <= len(old) for new, old in zip(traces, before)) and sum(map(len, traces)) < sum(
        map(len, before)
    )
    assert all(A.is_valid_trace(task.layout, notebook.spell(t.tolist())) for task, t in zip(notebook.tasks, traces))


def test_the_lenient_check_lets_moved_plans_pass_and_not_just_any():
    for puzzle in A.generate("sokoban", 7, 10, 0):
        cells = [(int(x), int(y)) for x, y in zip(puzzle.plan[1::3], puzzle.plan[2::3])]
        assert released_code.lenient_sokoban(puzzle.layout, cells)
        assert released_code.lenient_sokoban(puzzle.layout, [(x + 1, y) for x, y in cells])
        assert not released_code.lenient_sokoban(puzzle.layout, cells[:-1])
