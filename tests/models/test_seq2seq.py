"""The encoder-decoder against its equations, at odd sizes and in float64; its sizes; and that it learns."""

import math

import pytest
import torch
import torch.nn.functional as F

from paperwalk.generation import generate
from paperwalk.models.layers import CrossAttention
from paperwalk.models.seq2seq import SIZES, Seq2Seq, Seq2SeqConfig
from paperwalk.training import TrainConfig, train

CONFIG = dict(vocab_size=37, d_model=24, n_layers=2, n_heads=3, d_ff=20, max_positions=63)


def make(seed=0, **changes):
    """A float64 model with weights large enough that every token and position matters."""
    torch.manual_seed(seed)
    model = Seq2Seq(Seq2SeqConfig(**{**CONFIG, **changes})).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn_like(weight) / math.sqrt(weight.shape[-1]) + (weight.dim() == 1))
    return model


def attend(q, k, v, n_heads, turn=None, causal=False):
    """Heads one at a time, rotary pairs as complex numbers, softmax written out. (T, D), (S, D) -> (T, D)."""
    d = q.shape[1] // n_heads
    heads = []
    for qh, kh, vh in zip(q.split(d, 1), k.split(d, 1), v.split(d, 1)):
        if turn is not None:
            qh, kh = (torch.complex(x[:, : d // 2], x[:, d // 2 :]) * turn[: len(x)] for x in (qh, kh))
            scores = (qh @ kh.conj().T).real / math.sqrt(d)
        else:
            scores = qh @ kh.T / math.sqrt(d)
        if causal:
            scores = scores + torch.full_like(scores, -math.inf).triu(1)
        weights = scores.exp() / scores.exp().sum(1, keepdim=True)
        heads.append(weights @ vh)
    return torch.cat(heads, 1)


def naive(model, source, target):
    """Logits (T, V) of one target (T,) and one source (S,), from the paper's description alone."""
    config = model.config
    d = config.d_model // config.n_heads
    angle = [[t * config.rope_theta ** (-2 * i / d) for i in range(d // 2)] for t in range(config.max_positions)]
    turn = torch.polar(torch.ones(len(angle), d // 2, dtype=torch.float64), torch.tensor(angle, dtype=torch.float64))

    def norm(x, layer):
        return x / (x.pow(2).mean(-1, keepdim=True) + config.norm_eps).sqrt() * layer.weight

    def self_attention(x, layer, causal):
        q, k, v = (x @ w.T for w in layer.qkv.weight.chunk(3))
        return attend(q, k, v, config.n_heads, turn, causal) @ layer.out.weight.T

    def feed_forward(x, layer):
        gate, up = (x @ w.T for w in layer.gate_up.weight.chunk(2))
        return (gate * torch.sigmoid(gate) * up) @ layer.down.weight.T

    x = model.source_embedding.weight[source]
    for block in model.encoder:
        x = x + self_attention(norm(x, block.attention_norm), block.attention, causal=False)
        x = x + feed_forward(norm(x, block.feed_forward_norm), block.feed_forward)
    memory = norm(x, model.encoder_norm) @ model.encoder_out.weight.T
    x = model.target_embedding.weight[target]
    for block in model.decoder:
        x = x + self_attention(norm(x, block.attention_norm), block.attention, causal=True)
        y = norm(x, block.cross_norm) @ block.cross.q.weight.T
        k, v = (memory @ w.T for w in block.cross.kv.weight.chunk(2))
        x = x + attend(y, k, v, config.n_heads) @ block.cross.out.weight.T
        x = x + feed_forward(norm(x, block.feed_forward_norm), block.feed_forward)
    return norm(x, model.decoder_norm) @ model.head.weight.T


@pytest.mark.parametrize("S, T", [(1, 1), (1, 7), (13, 1), (11, 9), (63, 63)])
def test_model_equals_its_equations(S, T):
    model = make(rope_theta=50.0, norm_eps=1e-3)
    source, target = torch.randint(37, (2, S)), torch.randint(37, (2, T))
    expected = torch.stack([naive(model, s, t) for s, t in zip(source, target)])
    torch.testing.assert_close(model(source, target), expected, rtol=0, atol=1e-5)  # its tables are float32


@pytest.mark.parametrize(
    "size, millions, label", [("s", 6.3, 14.7), ("m", 33.3, 45.9), ("l", 149.5, 174.7), ("xl", 596.4, 609.0)]
)
def test_released_sizes(size, millions, label):
    """Trained weights; and with the frozen tables the paper's labels 15M, 45M, 175M, but not its 757M."""
    with torch.device("meta"):
        model = Seq2Seq(Seq2SeqConfig(**SIZES[size], vocab_size=118, max_positions=8))
    assert round(model.n_parameters / 1e6, 1) == millions
    tables = 2 * 2 * 65_536 * model.config.head_dim // 2  # encoder and decoder, cosines and sines
    assert round((model.n_parameters + tables) / 1e6, 1) == label


def test_parameters_counted_by_hand():
    V, D, L, H = 37, 24, 2, 20
    attention, ff = 4 * D * D, 3 * D * H
    encoder = L * (attention + ff + 2 * D) + D + D * D
    decoder = L * (2 * attention + ff + 3 * D) + D
    assert make().n_parameters == encoder + decoder + 3 * V * D


def test_padding_changes_no_logit_of_a_real_token():
    model = make()
    source_lengths, target_lengths = (9, 1, 6, 12), (3, 8, 1, 5)
    sources = [torch.randint(37, (n,)) for n in source_lengths]
    targets = [torch.randint(37, (n,)) for n in target_lengths]

    def padded(rows, width):
        return torch.stack([torch.cat((row, torch.randint(37, (width - len(row),)))) for row in rows])

    padding = 14 - torch.tensor(source_lengths)
    logits = model(padded(sources, 14), padded(targets, 11), padding)
    assert logits.isfinite().all()
    for row, source, target in zip(logits, sources, targets):
        alone = model(source[None], target[None])[0]
        torch.testing.assert_close(row[: len(target)], alone, rtol=0, atol=1e-12)
    without = model(padded(sources, 14), padded(targets, 11))
    assert (without[1, 0] - model(sources[1][None], targets[1][None])[0, 0]).abs().max() > 1e-3, "no mask, no change?"


def test_a_source_of_nothing_but_padding_stays_finite():
    model = make()
    logits = model(torch.zeros(2, 5, dtype=torch.long), torch.zeros(2, 3, dtype=torch.long), torch.tensor([5, 0]))
    logits.sum().backward()
    assert logits.isfinite().all()
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


def test_what_each_token_can_change():
    """A target token: no earlier logits, all later ones. A source token: all."""
    model = make()
    source, target = torch.randint(37, (2, 6)), torch.randint(37, (2, 7))
    before = model(source, target)
    for at in (0, 3, 6):
        changed = target.clone()
        changed[:, at] = (changed[:, at] + 1) % 37
        after = model(source, changed)
        torch.testing.assert_close(after[:, :at], before[:, :at], rtol=0, atol=1e-12)
        assert ((after[:, at:] - before[:, at:]).abs().amax(-1) > 1e-6).all()
    for at in (0, 3, 5):
        changed = source.clone()
        changed[:, at] = (changed[:, at] + 1) % 37
        assert ((model(changed, target) - before).abs().amax(-1) > 1e-6).all()


def test_order_of_the_source_matters_by_rotary_positions_alone():
    """Cross-attention has no positions: it reads a shuffled memory as it was."""
    torch.manual_seed(0)
    layer = CrossAttention(24, 3, 8).double()
    x, states = torch.randn(2, 5, 24, dtype=torch.float64), torch.randn(2, 7, 24, dtype=torch.float64)
    order = torch.randperm(7)
    plain, shuffled = (layer(x, *layer.keys_values(s)) for s in (states, states[:, order]))
    torch.testing.assert_close(plain, shuffled, rtol=0, atol=1e-12)
    model, source, target = make(), torch.arange(7)[None], torch.arange(3)[None]
    assert (model(source, target) - model(source[:, order], target)).abs().max() > 1e-3


@pytest.mark.parametrize("group", [1, 2, 5])
def test_targets_share_the_memory_of_their_source(group):
    model = make()
    source, target = torch.randint(37, (3, 6)), torch.randint(37, (3 * group, 4))
    padding = torch.tensor([0, 4, 2])
    expected = model(source.repeat_interleave(group, 0), target, padding.repeat_interleave(group))
    torch.testing.assert_close(model(source, target, padding), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("pieces", [(17,), (1,) * 17, (5, 1, 11), (1, 16)])
@pytest.mark.parametrize("group", [1, 2])
def test_cached_pieces_equal_one_pass(pieces, group):
    model = make()
    source, target, padding = torch.randint(37, (3, 6)), torch.randint(37, (3 * group, 17)), torch.tensor([0, 2, 5])
    whole = model(source, target, padding)
    cache = model.new_cache(3 * group, 17)
    with torch.no_grad():
        memory = model.encode(source, padding)
        states = torch.cat([model.hidden(piece, memory, cache) for piece in target.split(pieces, 1)], 1)
    assert cache.length == 17
    torch.testing.assert_close(model.head(states), whole, rtol=0, atol=1e-12)


def test_memory_of_some_sources():
    model = make()
    source, padding, rows = torch.randint(37, (4, 6)), torch.tensor([0, 2, 5, 1]), torch.tensor([3, 1])
    target = torch.randint(37, (2, 5))
    some = model.encode(source, padding)[rows]
    torch.testing.assert_close(
        model.head(model.hidden(target, some)), model(source[rows], target, padding[rows]), rtol=0, atol=1e-12
    )
    assert len(some) == 2 and model.encode(source)[rows].mask is None


def test_every_weight_gets_a_finite_gradient():
    model = make()
    model(torch.arange(37)[None], torch.arange(37)[None], torch.tensor([3])).logsumexp(-1).sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad.isfinite().all() and weight.grad.abs().sum() > 0, name


def test_initial_weights_and_loss():
    torch.manual_seed(0)
    model = Seq2Seq(Seq2SeqConfig(**SIZES["s"], vocab_size=118, max_positions=32))
    for name, weight in model.named_parameters():
        if weight.dim() == 1:
            assert (weight == 1).all()
        else:
            expected = 1 if "embedding" in name else 1 / math.sqrt(3 * weight.shape[1])
            assert weight.std().item() == pytest.approx(expected, rel=0.05), name
            assert abs(weight.mean().item()) < expected / 10, name
    source, target = torch.randint(118, (4, 20)), torch.randint(118, (4, 21))
    loss = F.cross_entropy(model(source, target[:, :-1]).transpose(1, 2), target[:, 1:]).item()
    assert loss == pytest.approx(math.log(118), abs=0.5)


def test_model_moves_to_bfloat16():
    model = make(d_model=48)
    source, target, padding = torch.randint(37, (2, 9)), torch.randint(37, (2, 7)), torch.tensor([0, 3])
    expected = model(source, target, padding).float()
    logits = model.bfloat16()(source, target, padding)
    assert logits.dtype == torch.bfloat16 and model.new_cache(2, 9).keys.dtype == torch.bfloat16
    assert (logits.float() - expected).abs().mean() < 0.05 * expected.abs().mean()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model.float()(source, target, padding)
    assert (mixed.float() - expected).abs().mean() < 0.05 * expected.abs().mean()


def test_a_source_without_ends_has_no_length():
    """Rotary positions are relative and softmax averages: n equal tokens look alike for every n, until one differs."""
    model, target = make(), torch.arange(5)[None]
    three, five = (torch.full((1, n), 7) for n in (3, 5))
    torch.testing.assert_close(model(three, target), model(five, target), rtol=0, atol=1e-12)
    three[0, 0] = five[0, 0] = 1
    assert (model(three, target) - model(five, target)).abs().max() > 1e-3


def test_train_teaches_it_to_reverse_strings():
    """Ragged, padded strings; greedy decoding of new ones is then right."""
    pad, bos, eos = 0, 1, 2
    padded = lambda rows: torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
    enclosed = lambda row: torch.cat((torch.tensor([bos]), row, torch.tensor([eos])))

    def strings(seed, n=64):
        g = torch.Generator().manual_seed(seed)
        length = torch.randint(1, 6, (n,), generator=g)
        return [torch.randint(3, 9, (k,), generator=g) for k in length.tolist()]

    def batch(step):
        rows = strings(step)
        return [(padded([enclosed(row) for row in rows]), padded([enclosed(row.flip(0)) for row in rows]))]

    def loss_fn(model, batch):
        source, target = batch
        logits = model(source, target[:, :-1], (source == pad).sum(1))
        loss = F.cross_entropy(logits.transpose(1, 2), target[:, 1:], reduction="sum", ignore_index=pad)
        return loss, (target[:, 1:] != pad).sum()

    torch.manual_seed(0)
    model = Seq2Seq(Seq2SeqConfig(vocab_size=9, d_model=48, n_layers=1, n_heads=2, d_ff=96, max_positions=9))
    log = train(model, batch, loss_fn, TrainConfig(steps=300, lr=6e-3, warmup=20, weight_decay=0.0), progress=False)
    assert log[-1]["loss"] < 0.05 < 1 < log[0]["loss"]
    new = strings(10_000)
    said = generate(model, [enclosed(row) for row in new], 8, bos=bos, eos=eos)
    right = [row.tolist() == [*string.flip(0).tolist(), eos] for row, string in zip(said, new)]
    assert sum(right) >= 0.9 * len(right)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(vocab_size=0), r"vocab_size = 0: must be a whole number of at least 1"),
        (dict(n_layers=2.0), r"n_layers = 2.0: must be a whole number"),
        (dict(d_ff=True), r"d_ff = True: must be a whole number"),
        (dict(n_heads=5), r"n_heads = 5: must be half of d_model = 24 or a divisor of that half"),
        (dict(n_heads=8), r"n_heads = 8: must be half of d_model"),
        (dict(rope_theta=0), r"rope_theta = 0: must be a finite number above 0"),
        (dict(norm_eps=math.nan), r"norm_eps = nan: must be a finite number above 0"),
    ],
)
def test_bad_sizes_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        Seq2SeqConfig(**{**CONFIG, **changes})


def test_bad_input_is_named():
    model = make()
    ids = torch.zeros(2, 5, dtype=torch.long)
    memory = model.encode(ids)
    for call, message in (
        (lambda: model(ids[0], ids), r"source of shape \(5,\): must be \(rows, tokens\)"),
        (lambda: model(ids, ids[:, :0]), r"target of shape \(2, 0\)"),
        (lambda: model(ids.repeat(1, 13), ids), "source reaches 65 tokens: must be at most 63"),
        (lambda: model(ids, ids.repeat(1, 13)), "target reaches 65 tokens: must be at most 63"),
        (lambda: model(ids, ids, torch.zeros(3)), r"padding of shape \(3,\): must be \(2,\)"),
        (lambda: model(ids, ids.repeat(2, 1)[:3]), "target of 3 rows: must be a multiple of the 2 sources"),
        (lambda: model.hidden(ids, memory, model.new_cache(3, 9)), "cache for 3 rows of 9 tokens: must hold 2 rows"),
        (lambda: model.hidden(ids, memory, model.new_cache(2, 4)), "of 4 tokens: must hold 2 rows of 5"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
