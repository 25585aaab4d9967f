"""The definitions of the Goldfish notebook, taken out of it and tested on tiny cases."""

import math

import pytest
import torch

from chapters.definitions import load
from paperwalk.kernels.goldfish_mask import goldfish_mask
from paperwalk.models.decoder import Decoder, DecoderConfig


@pytest.fixture(scope="module")
def notebook():
    return load("goldfish", device=torch.device("cpu"))


def test_loss_counts_kept_targets_only(notebook):
    logits = torch.randn(2, 4, 5, dtype=torch.float64)
    ids = torch.tensor([[0, 1, 2, 3], [4, 3, 2, 1]])
    keep = torch.tensor([[True, True, False, True], [False, False, True, False]])
    by_hand = 0.0
    for row, position in [(0, 1), (0, 3), (1, 2)]:  # position 0 is never a target
        scores = logits[row, position - 1].tolist()
        by_hand += math.log(sum(math.exp(s) for s in scores)) - scores[ids[row, position]]
    total, count = notebook.goldfish_loss(logits, ids, keep)
    assert count == 3 and total.item() == pytest.approx(by_hand, rel=1e-12)


def test_loss_gradient_is_zero_where_the_target_is_dropped(notebook):
    logits = torch.randn(1, 6, 5, requires_grad=True)
    keep = torch.tensor([[True, True, False, True, False, True]])
    total, _ = notebook.goldfish_loss(logits, torch.randint(5, (1, 6)), keep)
    rows = torch.autograd.grad(total, logits)[0][0].abs().sum(-1) > 0
    assert rows.tolist() == [True, False, True, False, True, False]  # logits at i predict the target at i + 1


def test_the_loss_of_training_is_the_one_shown(notebook):
    torch.manual_seed(0)
    model = Decoder(DecoderConfig(50, 16, 1, 2, 2, 16, 16)).double()
    ids, keep = torch.randint(50, (3, 12)), torch.rand(3, 12) > 0.3
    found = []
    for total, count in (notebook.loss_fn(model, (ids, keep)), notebook.goldfish_loss(model(ids), ids, keep)):
        found.append((total, count, *torch.autograd.grad(total, list(model.parameters()))))
    for ours, shown in zip(*found):
        torch.testing.assert_close(ours, shown, rtol=1e-10, atol=1e-10)


def test_nothing_kept_gives_zero_and_no_nan(notebook):
    logits = torch.randn(2, 4, 5, requires_grad=True)
    total, count = notebook.goldfish_loss(logits, torch.zeros(2, 4).long(), torch.zeros(2, 4).bool())
    assert total == 0 and count == 0
    assert torch.autograd.grad(total, logits)[0].abs().sum() == 0


@pytest.mark.parametrize("k, h", [(2, 1), (4, 13), (32, 5)])
def test_inline_masks_equal_the_library(notebook, k, h):
    row = torch.randint(0, 50_000, (300,))
    assert notebook.hash_mask(row.tolist(), k, h) == goldfish_mask(row, k, h).tolist()
    assert notebook.static_mask(row.tolist(), k) == goldfish_mask(row, k, h, "static").tolist()


def test_auc_is_the_share_of_pairs_told_apart(notebook):
    members, others = torch.rand(13), torch.rand(29) + 0.2
    pairs = members[:, None] < others[None]  # members have the lower scores
    torch.testing.assert_close(notebook.auc(members, others), pairs.double().mean(1))
    ties = notebook.auc(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0, 3.0]))
    assert ties.tolist() == pytest.approx([2 / 3, 1 / 3])


def test_outcomes_are_named_by_content(notebook):
    texts = torch.randint(50_000, (4, 9))
    named = notebook.by_text(texts, [1.0, math.nan, torch.tensor(False), 0.5])
    assert list(named.values()) == [1, 0, 0.5]  # what is undefined is left out
    again = notebook.by_text(texts.flip(0), torch.tensor([3.0, 2.0, 1.0, 0.0]))
    assert len(again) == 4 and set(named) < set(again) and all(type(value) is float for value in again.values())
    changed = texts.clone()
    changed[:, -1] += 1
    assert not set(notebook.by_text(changed, range(4))) & set(again)


def test_recite_finds_exact_matches_and_first_errors(notebook):
    torch.manual_seed(0)
    model = Decoder(DecoderConfig(20, 16, 1, 2, 2, 16, 16))
    prefix = torch.randint(20, (3, 6))
    said = torch.stack(notebook.generate(model, prefix, 5))
    texts = torch.cat((prefix, said), 1)  # what the model itself says: recited
    texts[1, 8] = (texts[1, 8] + 1) % 20  # row 1 leaves its text at position 8
    keep = torch.ones_like(texts, dtype=torch.bool)
    decode = lambda ids: " ".join(f"w{i}" for i in ids)
    out = notebook.recite(model, texts, 6, decode, keep)
    assert out["exact_match"].tolist() == [True, False, True]
    assert out["first_on_dropped"].nan_to_num(nan=9).tolist() == [9, 0, 9]
    keep[1, 8] = False
    assert notebook.recite(model, texts, 6, decode, keep)["first_on_dropped"].nan_to_num(nan=9).tolist() == [9, 1, 9]
    assert out["rouge"][0] == out["rouge"][2] == 1 and 0.5 < out["rouge"][1] < 1
    assert "first_on_dropped" not in notebook.recite(model, texts, 6, decode)


def test_dropped_excess_by_hand(notebook):
    space, p = notebook.namespace, notebook.p
    rows = space["validation"] = torch.randint(1000, (5, 40))
    losses, h = torch.rand(5, 39, dtype=torch.float64), 3
    found = notebook.dropped_excess(losses, h)
    for row, mine, ours in zip(rows, losses, found):
        keep = goldfish_mask(row, p.k, h)[1:]  # the loss of the target at i stands at i - 1
        assert ours == pytest.approx(mine[~keep].mean() - mine[keep].mean())
    assert notebook.dropped_excess(losses, 40).isnan().all()  # nothing has so much context, nothing is dropped


def test_variants_of_a_canary(notebook):
    T, shift, n = notebook.p.text_tokens, notebook.p.shift, 200
    long = 1000 + torch.arange(3 * (T + shift)).view(3, -1)
    space = notebook.namespace
    space.update(long_canaries=long, canaries=long[:, shift // 2 : shift // 2 + T])
    g, i = torch.Generator().manual_seed(0), torch.arange(n) % 3
    exact = notebook.variants(notebook.Arm("a"), i, g)
    assert torch.equal(exact, space["canaries"][i])
    shifted = notebook.variants(notebook.Arm("a", canaries="shifted"), i, g)
    assert set((shifted - long[i, :T]).flatten().tolist()) == set(range(shift + 1))
    assert (shifted.diff(dim=1) == 1).all()
    for every in (10, T - 1, T + 7):
        edited = notebook.variants(notebook.Arm("a", canaries="edited", edit_every=every), i, g)
        changed = edited != exact  # vocabulary ids lie far below 1000: every edit shows
        assert (changed[:, : T // every * every].unflatten(1, (-1, every)).sum(2) == 1).all() if every <= T else True
        assert (changed[:, T // every * every :].sum(1) <= 1).all()  # the last place may lie beyond the text
        assert edited[changed].max() < notebook.p.vocab_size


@pytest.fixture(scope="module")
def articles():
    """(token ids of real text, the places of distinct contexts of 13)"""
    from paperwalk.data import corpora

    articles = corpora.load("wikipedia")[:40]
    tokenizer = corpora.train_tokenizer(articles, 2048)
    ids = torch.tensor([i for a in articles for i in tokenizer.encode(a.text).ids])
    first = {tuple(context): i for i, context in reversed(list(enumerate(ids[:-1].unfold(0, 13, 1).tolist())))}
    return ids, torch.tensor(sorted(first.values()))


@pytest.mark.parametrize("k", [3, 4, 8, 32, 128])
def test_one_in_k_is_dropped_of_real_text(articles, k):
    """Distinct contexts only: a repeated one is decided once, so repeats would not be independent draws."""
    ids, distinct = articles
    dropped = (~goldfish_mask(ids, k, 13)[13:])[distinct].double()
    assert len(dropped) > 100_000
    assert abs(dropped.mean() - 1 / k) < 3 * (1 / k * (1 - 1 / k) / len(dropped)) ** 0.5


def test_arms_trained_together_are_those_trained_alone(tmp_path):
    """As a GPU's arms are: `trained` finds them finished, with what it would have made of each."""
    apart, together = (load("goldfish", device=torch.device("cpu")).namespace for _ in range(2))
    for space, folder in ((apart, "apart"), (together, "together")):
        p, g = space["p"], torch.Generator().manual_seed(0)
        draw = lambda rows, length: torch.randint(p.vocab_size, (rows, length), generator=g)
        long = draw(p.n_canaries, p.text_tokens + p.shift)
        space |= {"long_canaries": long, "canaries": long[:, p.shift // 2 :][:, : p.text_tokens]}
        space |= {"stream": draw(60, p.text_tokens), "validation": draw(p.validation_rows, p.text_tokens)}
        space |= {"canary_order": torch.arange(999) % p.n_canaries, "folder": tmp_path / folder}
        arm = space["Arm"]
        space["arms"] = [arm("control", None, canaries="none", steps=6), arm("hash", steps=6), arm("more", steps=7)]
        space["arms"] += [arm("edited", canaries="edited", edit_every=9, steps=6), arm("narrow", width=16, steps=6)]
    together["train_together"](together["arms"])
    finished = sorted(file.name for file in (tmp_path / "together").iterdir())
    assert finished == [
        "control.safetensors",
        "edited.safetensors",
        "hash.safetensors",
        "more.safetensors",
        "narrow.safetensors",
    ]
    together["rows"] = None  # nothing is trained any more
    for one, other in zip(apart["arms"], together["arms"]):
        (model, log), (stacked, its_log) = apart["trained"](one), together["trained"](other)
        for p, q in zip(model.parameters(), stacked.parameters()):
            torch.testing.assert_close(q, p, rtol=1e-4, atol=1e-5)
        for row, its_row in zip(log, its_log, strict=True):
            assert its_row == {name: pytest.approx(value, rel=1e-4) for name, value in row.items()}
