"""The definitions of the Searchformer notebook, taken out of it and tested on tiny cases."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from chapters.definitions import load
from paperwalk.kernels import astar as A


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


def test_all_tiny_mazes_are_there_once(notebook):
    mazes = list(notebook.tiny_mazes(2))
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


def test_lengths_are_compared_task_by_task(notebook):
    scores = notebook.search_scores
    space = scores.__globals__
    space["test_set"], space["astar_tokens"] = range(4), np.array([[100, 200], [50, 50], [10, 30], [40, 40]])
    space["knowing_tokens"] = np.array([80, 50, 10, 40])
    R = notebook.Rollout
    every = [(0, R("optimal", 4, 120, None)), (0, R("optimal", 4, 180, "wall")), (1, R("suboptimal", 6, 25, None))]
    every += [(2, R("optimal", 4, 10, "syntax")), (3, R("invalid", 0, 40, "syntax"))]
    out = scores(every)
    assert out["valid"] == pytest.approx(2 / 5)
    assert out["ilr_optimal"] == pytest.approx((150 / 150 + 20 / 10) / 4)
    assert out["ilr_solved"] == pytest.approx((150 / 150 + 50 / 25 + 20 / 10) / 4)
    assert out["length_ratio"] == pytest.approx((150 + 10) / (150 + 20))
    assert out["length_vs_best"] == pytest.approx((150 + 10) / (100 + 10))
    assert out["length_vs_perfect"] == pytest.approx((150 + 10) / (80 + 10))
    assert out["length_ratio_valid"] == pytest.approx(120 / 150)
    nothing = scores([(3, R("invalid", 0, 40, None))])
    assert math.isnan(nothing["length_ratio"]) and nothing["valid"] == 1


def test_the_lenient_check_lets_moved_plans_pass_and_not_just_any(notebook):
    for puzzle in A.generate("sokoban", 7, 10, 0):
        cells = [(int(x), int(y)) for x, y in zip(puzzle.plan[1::3], puzzle.plan[2::3])]
        assert notebook.lenient_sokoban(puzzle.layout, cells)
        assert notebook.lenient_sokoban(puzzle.layout, [(x + 1, y) for x, y in cells])
        assert not notebook.lenient_sokoban(puzzle.layout, cells[:-1])
