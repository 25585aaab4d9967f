"""The definitions of the TransformerFAM notebook, taken out of it and tested on tiny cases."""

import math
from contextlib import contextmanager
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from chapters.definitions import load
from paperwalk import evidence
from paperwalk.models.fam import FAMConfig, TransformerFAM
from paperwalk.papers.transformer_fam import drawings
from paperwalk.papers.transformer_fam.speed import of_stream

KEY, ASK, FIRST, IGNORED = 256, 257, 258, -100


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    known = {"KEY": KEY, "ASK": ASK, "FIRST": FIRST, "IGNORED": IGNORED, "device": torch.device("cpu")}
    space = load("transformer_fam", **known).namespace
    g = torch.Generator().manual_seed(0)
    space["vocab_size"] = FIRST + space["p"].symbols
    space["train_text"] = space["test_text"] = torch.randint(256, (5000,), generator=g)
    space["folder"] = tmp_path_factory.mktemp("checkpoints")
    space["adam"] = {}
    return SimpleNamespace(**space)


@contextmanager
def changed(notebook, **functions):
    """The notebook's functions of these names are others for a while."""
    space = notebook.named.__globals__
    kept = {name: space[name] for name in functions}
    space.update(functions)
    try:
        yield
    finally:
        space.update(kept)


@pytest.mark.parametrize("T", [1, 5, 16, 21])
@pytest.mark.parametrize(("M", "length"), [(0, 0), (0, 1), (2, 3), (1, 8)])
def test_the_inline_loop_equals_the_library(notebook, T, M, length):
    torch.manual_seed(0)
    model = TransformerFAM(FAMConfig(30, 16, 2, 2, 32, 5, M, length)).double()
    ids = torch.randint(30, (3, T))
    torch.testing.assert_close(notebook.naive_fam(model, ids), model(ids)[0], atol=1e-10, rtol=0)


@pytest.mark.parametrize("told", [1, 2])
def test_a_key_stands_once_in_its_block_and_is_asked_for_at_the_end(notebook, told):
    b = notebook.p.block_size
    ids, key = notebook.passkeys(50, 3, notebook.train_text, torch.Generator().manual_seed(1), told)
    assert ids.shape == (50, 3 * b) and key.shape == (50, 2)
    places = set()
    for row, wanted in zip(ids, key):
        at = (row == KEY).nonzero().flatten().tolist()
        assert (
            len(at) == 1
            and (told - 1) * b <= at[0] < told * b - 2
            and row[at[0] + 1 : at[0] + 3].tolist() == wanted.tolist()
        )
        assert row[-2] == ASK and row[-1] == wanted[0]
        assert sum(token >= 256 for token in row.tolist()) == 5  # all else is text
        places.add(at[0])
    assert len(places) > 5


@pytest.mark.parametrize(("n", "told"), [(1, 1), (4, 1), (4, 2)])
def test_one_of_several_facts_is_asked_for(notebook, n, told):
    ids, key = notebook.several(n)(40, 3, notebook.train_text, torch.Generator().manual_seed(1), told)
    for row, wanted in zip(ids.tolist(), key.tolist()):
        start = (told - 1) * notebook.p.block_size
        facts = row[start : start + 3 * n]
        told_of = dict(zip(facts[1::3], facts[2::3]))
        assert facts[::3] == [KEY] * n and len(told_of) == n  # no name twice
        assert row[-2] == ASK and wanted == [IGNORED, told_of[row[-1]]]
    assert len({row[-1] for row in ids.tolist()}) > 3


def test_more_facts_than_a_block_holds_are_refused(notebook):
    with pytest.raises(ValueError, match="facts = 6: must be at most 5"):
        notebook.several(6)


@pytest.mark.parametrize(("told", "idle"), [(1, [(1, 5)]), (2, [(2, 5)]), (4, [(1, 3), (4, 5)]), (5, [(1, 4)])])
def test_the_penalty_is_on_blocks_without_a_key(notebook, told, idle):
    torch.manual_seed(0)
    b = notebook.p.block_size
    model = TransformerFAM(FAMConfig(notebook.vocab_size, 16, 2, 2, 32, b, 0, 3))
    ids = torch.randint(256, (4, 5 * b))
    logits, change = notebook.read_in_stretches(model, ids, told)
    torch.testing.assert_close(logits, model(ids)[0][:, -2:])
    after = lambda n: model(ids[:, : n * b])[1].fam
    expected = sum((after(j) - after(i)).square().sum((0, 2, 3)) / after(i).square().sum((0, 2, 3)) for i, j in idle)
    torch.testing.assert_close(change, expected)


def test_the_penalty_holds_the_memory_of_rmt_too(notebook):
    model = notebook.new_model(notebook.Arm("rmt", "rmt"))
    logits, change = notebook.read_in_stretches(model, torch.randint(256, (4, 3 * notebook.p.block_size)), 1)
    assert logits.shape == (4, 2, notebook.vocab_size) and change.shape == (4,) and (change > 0).all()


def test_the_penalty_rises_and_counts_in_the_loss(notebook):
    arm = notebook.Arm("penalised", steps=10)
    batches, model = notebook.schedule(arm, notebook.passkeys), notebook.new_model(arm)
    weights = [batches(step)[0][3] for step in range(10)]
    assert weights == pytest.approx([arm.penalty * min(1, max(0, 0.2 * step - 0.5)) for step in range(10)])
    ids, key, told, weight, passes = batches(5)[0]
    loss, count = notebook.answering(arm)(model, (ids, key, told, weight, passes))
    without, _ = notebook.answering(arm)(model, (ids, key, told, 0.0, passes))
    change = notebook.read_in_stretches(model, ids, told)[1]
    assert count == key.numel()
    torch.testing.assert_close(loss, without + weight * count * change.mean())


def test_a_state_passed_on_holds_one_row_without_gradient_or_segments(notebook):
    torch.manual_seed(0)
    model = TransformerFAM(FAMConfig(30, 16, 2, 2, 32, 5, 1, 3))
    _, state = model(torch.randint(30, (4, 10)))
    passed = notebook.for_rows(notebook.passed_on(state, 2), 4)
    assert not passed.fam.requires_grad and passed.keys.shape[3] == 0 and passed.position == 0 and not passed.fresh
    for row in range(4):
        torch.testing.assert_close(passed.fam[:, row], state.fam[:, 2])
    model(torch.randint(30, (4, 7)), passed)  # fits


@pytest.mark.parametrize("start", [0, 10])
def test_the_fam_reads_with_weights_of_one(notebook, start):
    torch.manual_seed(0)
    model = TransformerFAM(FAMConfig(30, 16, 2, 2, 32, 5, 0, 3))
    weights = notebook.fam_attention(model, torch.randint(30, (4, 15)), start)
    assert weights.shape == (2, 4, 3, 3 + 5) and (weights > 0).all()
    torch.testing.assert_close(weights.sum(3), torch.ones(2, 4, 3))


def test_shares_of_the_reading(notebook):
    p = notebook.p
    even = lambda model, ids, start: torch.full((2, len(ids), 3, 3 + p.block_size), 1 / (3 + p.block_size))
    with changed(notebook, fam_attention=even):
        on_key, idle, example = notebook.reading(SimpleNamespace(config=SimpleNamespace(fam_length=3)))
    assert on_key == pytest.approx([3 / (3 + p.block_size)] * 2)  # the key's three tokens
    assert idle == pytest.approx([p.block_size / (3 + p.block_size)] * 2)
    assert KEY in example["ids"] and len(example["ids"]) == p.block_size


def test_rolling_feeds_the_layer_above(notebook):
    torch.manual_seed(0)
    model = TransformerFAM(FAMConfig(30, 16, 2, 2, 32, 5, 0, 3))
    rolled = notebook.Rolled(model.config)
    rolled.load_state_dict(model.state_dict())
    ids = torch.randint(30, (2, 10))
    torch.testing.assert_close(rolled.hidden(ids[:, :5])[0], model.hidden(ids[:, :5])[0])
    assert not torch.allclose(rolled.hidden(ids)[0][:, 5:], model.hidden(ids)[0][:, 5:])
    torch.testing.assert_close(rolled.hidden(ids[:, :5])[1].fam[0], model.hidden(ids[:, :5])[1].fam[1])


def test_gradients_come_nearest_first(notebook):
    torch.manual_seed(0)
    p = notebook.p
    model = TransformerFAM(FAMConfig(notebook.vocab_size, 16, 2, 2, 32, p.block_size, 0, 3))
    norms = notebook.gradient_by_distance(model, 4)
    assert len(norms) == 3 and all(norm > 0 for norm in norms)


def test_a_long_text_read_in_pieces_says_the_same(notebook):
    ids = torch.randint(256, (3, 7 * notebook.p.block_size))
    for kind in ("fam", "rmt", "full"):
        model = notebook.new_model(notebook.Arm(kind, kind))
        whole = notebook.read_in_pieces(model, ids)
        torch.testing.assert_close(notebook.read_in_pieces(model, ids, blocks=2), whole, rtol=1e-4, atol=1e-4)


def test_operations_are_those_of_the_matrix_products(notebook):
    config = FAMConfig(10, 8, 3, 2, 12, 4, 2, 0)
    token = 4 * 8 * 8 + 3 * 8 * 12 + 2 * 8 * (2 * 4 + 2.5)  # projections, feed-forward, keys and values
    assert notebook.flops_a_token(config) == pytest.approx(2 * (3 * token + 8 * 10))
    with_fam = FAMConfig(10, 8, 3, 2, 12, 4, 2, 2)
    fam = 2 / 4 * (4 * 8 * 8 + 3 * 8 * 12 + 2 * 8 * (2 + 4)) + 2 * 8 * 2
    assert notebook.flops_a_token(with_fam) == pytest.approx(2 * (3 * (token + fam) + 8 * 10))


def test_training_learns_and_finished_arms_are_not_trained_again(notebook):
    arm = notebook.Arm("test", steps=8, rsp_from=0.0)
    model, log = notebook.trained(arm)
    again, log_again = notebook.trained(arm)
    assert len(log) == len(log_again) == 8 and 0 <= notebook.accuracy(model, 2) <= 1
    for one, other in zip(model.parameters(), again.parameters()):
        assert torch.equal(one, other)


def test_whether_each_key_is_named(notebook):
    texts = notebook.p.test_texts
    seen = []

    def right_in_half(model, ids):
        place = (ids == KEY).long().argmax(1)
        seen.extend((place // notebook.p.block_size + 1).tolist())
        key = ids[torch.arange(len(ids))[:, None], place[:, None] + torch.arange(1, 3)]
        key[::2, 0] += 1  # one of the two symbols is enough to be wrong
        return F.one_hot(key, notebook.vocab_size + 1)

    with changed(notebook, read_in_pieces=right_in_half):
        first, anywhere = notebook.named(None, 11), notebook.named(None, 11, anywhere=True)
        assert notebook.accuracy(None, 11) == np.mean([*first.values()])
    numbers = lambda items: [int(item.rpartition("-")[2]) for item in items]
    assert numbers(first) == numbers(anywhere) == list(range(texts))
    assert [item.split("/")[0] for item in (*first, *anywhere)] == [f"block {told}" for told in seen[: 2 * texts]]
    assert seen[:texts] == [1] * texts and sorted(set(seen[texts : 2 * texts])) == list(range(1, 11))
    assert all(item.split("/")[1].startswith(f"{notebook.p.seed}-") for item in first)
    assert list(first.values()) == [i % (texts // 10) % 2 == 1 for i in range(texts)]


def test_a_fact_is_named_by_its_value_alone(notebook):
    def right(model, ids):
        names, values = ids[:, 1:6:3], ids[:, 2:6:3]
        value = values[names == ids[:, -1:]]
        return F.one_hot(torch.stack((value * 0, value), 1), notebook.vocab_size)

    with changed(notebook, read_in_pieces=right):
        assert all(notebook.named(None, 3, notebook.several(2)).values())


def test_an_arm_is_tested_at_its_lengths(notebook):
    given = lambda model, blocks, task=None, anywhere=False: {"block 1/0-0": blocks + 0.5 * anywhere}
    log = [{"step": 0}, {"step": 7, "accuracy": 0.5}]
    longest = notebook.p.longest
    with changed(notebook, named=given, trained=lambda arm, *_, **__: (None, log)):
        out, kept = notebook.tested(notebook.Arm("fam", multiples=(1, 30), anywhere=(10,)))
        assert notebook.study(notebook.Arm("facts-2-4", facts=2)) == (
            {"fact_named": {"block 1/0-0": longest + 0.5}},
            {},
        )
        assert notebook.study(notebook.Arm("other-layer")) == ({"key_named_x1": {"block 1/0-0": longest}}, {})
    values = {measure: of["block 1/0-0"] for measure, of in out.items()}
    assert values == {"key_named_x1": longest, "key_named_x30": 30 * longest, "key_anywhere_x10": 10 * longest + 0.5}
    assert kept == {"curve": [(8, 0.5)]}


def test_what_is_measured_inside_a_memory(notebook):
    longest = notebook.p.longest
    norms = [float(i + 1) for i in range(10 * longest)]
    gradients = [math.exp(-0.1 * i) for i in range(6)]
    functions = {
        "trained": lambda arm: (torch.nn.Linear(1, 1), []),
        "reading": lambda model: ([0.1, 0.7], [0.5, 0.2], {}),
        "gradient_by_distance": lambda model, blocks: gradients,
        "norms_by_block": lambda model, blocks: norms[:blocks],
    }
    with changed(notebook, **functions):
        out, kept = notebook.study(notebook.Arm("no-penalty"))
    assert out["gradient_slope"][""] == pytest.approx(-0.1) and out["norm_growth"][""] == pytest.approx(10)
    assert out["attention_on_key"][""] == 0.7 and out["attention_idle"][""] == 0.2  # of one layer
    assert kept == {"on_key": [0.1, 0.7], "idle": [0.5, 0.2], "example": {}, "gradients": gradients, "norms": norms}


def test_losses_of_passages_by_part(notebook):
    p = notebook.p
    early, late = p.book_blocks * p.book_block_size, 7 * p.book_blocks * p.book_block_size

    def loss(model, ids):
        rows = torch.arange(len(ids))[:, None] * 10.0
        first, rest = rows + torch.ones(len(ids), p.book_block_size), early - p.book_block_size
        return torch.cat((first, rows + 2 * torch.ones(len(ids), rest), rows + 3 * torch.ones(len(ids), late)), 1)

    with changed(notebook, next_byte_loss=loss, train=lambda *_, **__: []):
        out, kept = notebook.read_books(notebook.Arm("books", steps=2))
    items = [f"{p.seed}-{i}" for i in range(p.book_passages)]
    assert out["first_block_loss"] == {item: 10 * i + 1 for i, item in enumerate(items)}
    assert out["late_loss"] == {item: 10 * i + 3 for i, item in enumerate(items)}
    middle = 10 * (p.book_passages - 1) / 2
    assert kept["by_block"] == [middle + x for x in [1] + [2] * (p.book_blocks - 1) + [3] * 7 * p.book_blocks]


def test_measures_of_a_stream():
    taken, memory = np.arange(1.0, 11), np.array([5.0, 7, *[9] * 8])
    out = of_stream(taken, memory, 1000)
    assert out["r_squared", "stream"] == pytest.approx(1) and out["memory_growth", "stream"] == 2
    assert out["seconds_a_million", "stream"] == pytest.approx(10_000)


def test_figures_are_drawn_with_results_and_without():
    shown = evidence.shown("transformer_fam")
    for results in ([], shown):
        for draw in (drawings.keys_named, drawings.ablations, drawings.inside, drawings.book_gains):
            fig = draw(results)
            assert bool(fig.axes[0].lines or fig.axes[0].patches) == bool(results) or draw is drawings.book_gains
            plt.close(fig)
