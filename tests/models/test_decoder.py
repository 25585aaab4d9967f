"""The decoder against explicit references, at odd sizes and in float64."""

import math

import pytest
import torch

from paperwalk.models.decoder import Decoder, DecoderConfig
from paperwalk.models.layers import Attention, SwiGLU, rope_table, rotate

SIZES = dict(vocab_size=37, d_model=24, n_layers=2, n_heads=6, n_kv_heads=2, d_ff=20, max_positions=63)


def make(seed=0, **changes):
    """A float64 decoder with weights large enough that every token and position matters."""
    torch.manual_seed(seed)
    model = Decoder(DecoderConfig(**{**SIZES, **changes})).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn_like(weight) / math.sqrt(weight.shape[-1]) + (weight.dim() == 1))
    return model


def reference_attention(layer, x, theta):
    """Heads one at a time, rotary pairs as complex numbers, a softmax written out. x (T, D) -> (T, D)."""
    T, (H, K, d) = len(x), (layer.n_heads, layer.n_kv_heads, layer.head_dim)
    q, k, v = (x @ layer.qkv.weight.T).split((H * d, K * d, K * d), -1)
    turn = torch.tensor([[t * theta ** (-2 * i / d) for i in range(d // 2)] for t in range(T)])
    turn = torch.polar(torch.ones_like(turn, dtype=torch.float64), turn.double())

    def turned(head):
        z = torch.complex(head[:, : d // 2], head[:, d // 2 :]) * turn
        return torch.cat((z.real, z.imag), -1)

    heads = []
    for h in range(H):
        group = h // (H // K)
        qh, kh = turned(q[:, h * d : (h + 1) * d]), turned(k[:, group * d : (group + 1) * d])
        vh = v[:, group * d : (group + 1) * d]
        rows = [torch.softmax(qh[t] @ kh[: t + 1].T / math.sqrt(d), -1) @ vh[: t + 1] for t in range(T)]
        heads.append(torch.stack(rows))
    return torch.cat(heads, -1) @ layer.out.weight.T


@pytest.mark.parametrize("n_heads, n_kv_heads, head_dim", [(6, 2, 4), (3, 3, 8), (5, 1, 2)])
def test_grouped_query_attention_equals_heads_one_by_one(n_heads, n_kv_heads, head_dim):
    torch.manual_seed(1)
    layer = Attention(24, n_heads, n_kv_heads, head_dim).double()
    x = torch.randn(1, 13, 24, dtype=torch.float64)
    cos, sin = (table[:, None] for table in rope_table(13, head_dim, 100.0))
    expected = reference_attention(layer, x[0], 100.0)
    torch.testing.assert_close(layer(x, cos, sin, causal=True)[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("tied", [True, False])
def test_decoder_equals_equations(tied):
    model = make(tie_embeddings=tied, rope_theta=50.0, norm_eps=1e-3)
    ids = torch.randint(37, (1, 11))

    def norm(x, weight):
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-3).sqrt() * weight

    x = model.embedding.weight[ids[0]]
    for block in model.blocks:
        x = x + reference_attention(block.attention, norm(x, block.attention_norm.weight), 50.0)
        y = norm(x, block.feed_forward_norm.weight)
        gate, up = (y @ w.T for w in block.feed_forward.gate_up.weight.chunk(2))
        x = x + (gate * torch.sigmoid(gate) * up) @ block.feed_forward.down.weight.T
    out = model.embedding.weight if tied else model.untied_head
    torch.testing.assert_close(model(ids)[0], norm(x, model.norm.weight) @ out.T, rtol=0, atol=1e-5)


def test_rotary_scores_depend_on_distance_only():
    cos, sin = (table.double() for table in rope_table(60, 16))
    q, k = torch.randn(2, 16, dtype=torch.float64)
    scores = torch.stack([rotate(q, cos[i + 7], sin[i + 7]) @ rotate(k, cos[i], sin[i]) for i in range(53)])
    torch.testing.assert_close(scores, scores[:1].expand(53), rtol=0, atol=1e-5)
    moved = rotate(q, cos[8], sin[8]) @ rotate(k, cos[0], sin[0])
    assert (moved - scores[0]).abs() > 1e-3
    torch.testing.assert_close(rotate(q, cos[0], sin[0]), q)


@pytest.mark.parametrize("B, T", [(1, 1), (3, 2), (2, 63)])
def test_a_token_changes_no_earlier_logits_and_its_own(B, T):
    model = make()
    ids = torch.randint(37, (B, T))
    before = model(ids)
    for at in {0, T // 2, T - 1}:
        changed = ids.clone()
        changed[:, at] = (changed[:, at] + 1) % 37
        after = model(changed)
        torch.testing.assert_close(after[:, :at], before[:, :at], rtol=0, atol=1e-12)
        assert ((after[:, at:] - before[:, at:]).abs().amax(-1) > 1e-6).all()


@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_counted_once(tied):
    V, D, L, F, d = 37, 24, 2, 20, 4
    layer = D * (6 + 2 * 2) * d + 6 * d * D + 3 * D * F + 2 * D
    assert make(tie_embeddings=tied).n_parameters == V * D * (1 if tied else 2) + L * layer + D


def test_initial_scales():
    model = Decoder(DecoderConfig(500, 96, 8, 4, 2, 256, 16, tie_embeddings=False))
    for name, weight in model.named_parameters():
        if weight.dim() == 1:
            assert (weight == 1).all()
        else:
            residual = "attention.out" in name or "down" in name
            expected = 0.02 / math.sqrt(16) if residual else 0.02
            assert weight.std().item() == pytest.approx(expected, rel=0.05), name
            assert abs(weight.mean().item()) < expected / 20, name


def test_every_weight_gets_a_finite_gradient():
    model = make(tie_embeddings=False)
    model(torch.arange(37).repeat(2, 1)).logsumexp(-1).sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad.isfinite().all() and weight.grad.abs().sum() > 0, name


def test_padding_changes_no_logit_and_stays_finite():
    model = make()
    counts = torch.tensor([0, 5, 9, 1])
    texts = [torch.randint(37, (10 - n,)) for n in counts]
    padded = torch.stack([torch.cat((torch.randint(37, (n,)), text)) for n, text in zip(counts, texts)])
    logits = model(padded, padding=counts)
    assert logits.isfinite().all()
    for row, n, text in zip(logits, counts, texts):
        torch.testing.assert_close(row[n:], model(text[None])[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("pieces", [(17,), (1,) * 17, (5, 1, 11), (1, 16)])
@pytest.mark.parametrize("counts", [None, (0, 4, 9)])
def test_cached_pieces_equal_one_pass(pieces, counts):
    model = make()
    ids = torch.randint(37, (3, 17))
    padding = None if counts is None else torch.tensor(counts)
    whole = model(ids, padding=padding)
    cache = model.new_cache(3, 17)
    with torch.no_grad():
        logits = torch.cat([model(piece, cache, padding) for piece in ids.split(pieces, 1)], 1)
    assert cache.length == 17
    for row in range(3):
        start = 0 if counts is None else counts[row]
        torch.testing.assert_close(logits[row, start:], whole[row, start:], rtol=0, atol=1e-12)


def test_cache_rows_can_be_reordered_and_repeated():
    model = make()
    ids, following = torch.randint(37, (3, 6)), torch.randint(37, (4, 2))
    rows = torch.tensor([2, 0, 2, 1])
    cache = model.new_cache(3, 8)
    with torch.no_grad():
        model(ids, cache)
        cache.reorder(rows)
        logits = model(following, cache)
    expected = model(torch.cat((ids[rows], following), 1))[:, 6:]
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("room", [1, 5])
def test_a_cache_that_grew_holds_what_it_held_and_zeros(room):
    model, ids = make(), torch.randint(37, (3, 8))
    cache = model.new_cache(3, 6)
    with torch.no_grad():
        first = model(ids[:, :6], cache)
        keys, values = cache.keys, cache.values
        cache.grow(room)
        assert cache.capacity == 6 + room and cache.length == 6
        for grown, before in ((cache.keys, keys), (cache.values, values)):
            assert torch.equal(grown[:, :, :, :6], before) and not grown[:, :, :, 6:].any()
        logits = torch.cat((first, model(ids[:, 6 : 6 + min(room, 2)], cache)), 1)
    torch.testing.assert_close(logits, model(ids[:, : logits.shape[1]]), rtol=0, atol=1e-12)


def test_model_moves_to_bfloat16_with_its_cache():
    model = make(d_model=48).bfloat16()
    cache = model.new_cache(2, 9)
    assert cache.keys.dtype == torch.bfloat16
    ids = torch.randint(37, (2, 9))
    with torch.no_grad():
        cached = torch.cat((model(ids[:, :4], cache), model(ids[:, 4:], cache)), 1)
        assert cached.dtype == torch.bfloat16
        torch.testing.assert_close(cached.float(), model(ids).float(), rtol=0.1, atol=0.3)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(vocab_size=0), r"vocab_size = 0: must be a whole number of at least 1"),
        (dict(n_layers=2.0), r"n_layers = 2.0: must be a whole number"),
        (dict(d_ff=True), r"d_ff = True: must be a whole number"),
        (dict(n_kv_heads=4), r"n_kv_heads = 4: must be a divisor of n_heads = 6"),
        (dict(n_heads=5, n_kv_heads=5), r"n_heads = 5: must be a divisor of d_model = 24"),
        (dict(head_dim=3), r"head_dim = 3: must be an even whole number"),
        (dict(d_model=18), r"head_dim = 3: must be an even whole number"),
        (dict(rope_theta=0), r"rope_theta = 0: must be a finite number above 0"),
        (dict(norm_eps=math.nan), r"norm_eps = nan: must be a finite number above 0"),
        (dict(tie_embeddings=1), r"tie_embeddings = 1: must be True or False"),
    ],
)
def test_bad_sizes_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        DecoderConfig(**{**SIZES, **changes})


def test_bad_input_is_named():
    model = make()
    ids = torch.zeros(2, 5, dtype=torch.long)
    with pytest.raises(ValueError, match=r"ids of shape \(5,\)"):
        model(ids[0])
    with pytest.raises(ValueError, match=r"ids of shape \(2, 0\)"):
        model(ids[:, :0])
    with pytest.raises(ValueError, match="ids reach 64 tokens: must be at most 63"):
        model(torch.zeros(1, 64, dtype=torch.long))
    with pytest.raises(ValueError, match="cache for 3 rows of 9 tokens: must hold 2 rows of 5"):
        model(ids, model.new_cache(3, 9))
    with pytest.raises(ValueError, match="cache for 2 rows of 4 tokens: must hold 2 rows of 5"):
        model(ids, model.new_cache(2, 4))
    with pytest.raises(ValueError, match=r"padding of shape \(3,\): must be \(2,\)"):
        model(ids, padding=torch.zeros(3, dtype=torch.long))


def test_swiglu_is_gated():
    layer = SwiGLU(5, 7).double()
    x = torch.randn(3, 5, dtype=torch.float64)
    gate, up = (x @ w.T for w in layer.gate_up.weight.chunk(2))
    expected = (gate / (1 + torch.exp(-gate)) * up) @ layer.down.weight.T
    torch.testing.assert_close(layer(x), expected)
