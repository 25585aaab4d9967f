"""TransformerFAM against the block-by-block loop of Algorithm 2, in float64, and the properties it is chosen for."""

import math
import random
from dataclasses import replace

import pytest
import torch

from models import fam_naive
from paperwalk.models.decoder import Decoder, DecoderConfig
from paperwalk.models.fam import FAMConfig, TransformerFAM
from paperwalk.papers.transformer_fam.baselines import RecurrentMemoryTransformer

V = 37
SIZES = dict(vocab_size=V, d_model=24, n_layers=2, n_heads=3, d_ff=20, block_size=5, memory_segments=1, fam_length=2)


def make(seed=0, **changes):
    """A float64 model with weights large enough that every token, position and FAM matters."""
    torch.manual_seed(seed)
    return scaled(TransformerFAM(FAMConfig(**{**SIZES, **changes})))


def scaled(model):
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn_like(weight) / math.sqrt(max(weight.shape[-1], 1)) + (weight.dim() == 1))
    return model.double()


def gradients(model, logits):
    """Of every weight, for a loss that weighs each logit differently."""
    weights = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).reshape(logits.shape)
    grads = torch.autograd.grad((logits * weights).sum(), list(model.parameters()), materialize_grads=True)
    return dict(zip((name for name, _ in model.named_parameters()), grads))


def read_in_pieces(model, ids, pieces):
    state, logits = None, []
    for piece in ids.split(pieces, 1):
        out, state = model(piece, state)
        logits.append(out)
    return torch.cat(logits, 1)


@pytest.mark.parametrize("block, M, F", [(5, 0, 1), (5, 0, 7), (5, 1, 2), (4, 3, 3), (1, 2, 1), (3, 2, 0), (5, 0, 0)])
@pytest.mark.parametrize("T", [1, 5, 13, 20])
def test_equals_the_naive_loop_forward_and_gradient(block, M, F, T):
    model = make(block_size=block, memory_segments=M, fam_length=F)
    ids = torch.randint(V, (2, T))
    expected, got = fam_naive.logits(model, ids), model(ids)[0]
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-9)
    one, other = gradients(model, got), gradients(model, expected)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-9, atol=1e-9, msg=lambda m: f"{name}: {m}")


@pytest.mark.parametrize("pieces", [1, 3, 5, 7, (2, 11, 4), (10, 7), (4, 1, 12)])
@pytest.mark.parametrize("M, F", [(0, 3), (2, 1), (1, 0)])
def test_state_passing_equals_one_call_forward_and_gradient(pieces, M, F):
    model = make(memory_segments=M, fam_length=F)
    ids = torch.randint(V, (2, 17))
    whole, parts = fam_naive.logits(model, ids), read_in_pieces(model, ids, pieces)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-9)
    one, other = gradients(model, parts), gradients(model, whole)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-9, atol=1e-9, msg=lambda m: f"{name}: {m}")


def test_separate_projections_equal_the_naive_loop():
    model = make(separate_projections=True)
    ids = torch.randint(V, (2, 17))
    got, expected = model(ids)[0], fam_naive.logits(model, ids)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-9)
    one, other = gradients(model, got), gradients(model, expected)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-9, atol=1e-9, msg=lambda m: f"{name}: {m}")
    D = SIZES["d_model"]
    assert model.n_parameters == make().n_parameters + SIZES["n_layers"] * 4 * D * D


@pytest.mark.parametrize(
    "ablation",
    [dict(fam_residual=False), dict(static_query=True), dict(stop_gradient="blocks"), dict(stop_gradient="feedback")],
)
def test_ablations_decode_as_they_train(ablation):
    model = make(**ablation)
    ids = torch.randint(V, (2, 17))
    whole = model(ids)[0]
    torch.testing.assert_close(read_in_pieces(model, ids, 1), whole, rtol=0, atol=1e-9)
    same = (whole - make()(ids)[0]).abs().max() < 1e-9 if "static_query" not in ablation else False
    assert same == ("stop_gradient" in ablation)


@pytest.mark.parametrize("M", [2, 5])
def test_without_fam_a_window_over_all_is_the_full_decoder(M):
    model = make(memory_segments=M, fam_length=0, rope_theta=50.0)
    T = 5 * (M + 1)
    config = DecoderConfig(V, 24, 2, 3, 3, 20, max_positions=T, rope_theta=50.0)
    decoder = Decoder(config).double()
    decoder.load_state_dict({name: weight for name, weight in model.state_dict().items() if name != "prompt"})
    ids = torch.randint(V, (3, T))
    torch.testing.assert_close(model(ids)[0], decoder(ids), rtol=0, atol=1e-5)


def test_no_logit_depends_on_a_later_token():
    """Also with the last token of a block, which its FAM has read: the FAM is not seen inside its own block."""
    draw = random.Random(0)
    for seed in range(12):
        block, M, F = draw.randint(1, 7), draw.randint(0, 3), draw.randint(0, 5)
        model = make(seed, block_size=block, memory_segments=M, fam_length=F)
        T = draw.randint(1, 4 * block + 3)
        ids = torch.randint(V, (1, T))
        before = model(ids)[0]
        for t in {0, T // 2, T - 1, min(block - 1, T - 1), T // block * block - 1} & set(range(T)):
            changed = ids.clone()
            changed[0, t] = (changed[0, t] + 1) % V
            after = model(changed)[0]
            torch.testing.assert_close(after[:, :t], before[:, :t], rtol=0, atol=1e-12)
            assert (after[:, t] - before[:, t]).abs().max() > 1e-6


def reach(model, blocks):
    """Which of the blocks have a gradient path to the states of the last one."""
    b = model.config.block_size
    ids = torch.arange(blocks * b)[None]
    hidden = model.hidden(ids)[0][:, -b:]
    grad = torch.autograd.grad(hidden.square().sum(), model.embedding.weight)[0]
    return [block.abs().max().item() > 0 for block in grad[: blocks * b].split(b)]


@pytest.mark.parametrize(
    "changes, seen",
    [
        (dict(memory_segments=0, fam_length=0), 0),
        (dict(memory_segments=1, fam_length=0), 2),
        (dict(memory_segments=2, fam_length=0), 4),
        (dict(memory_segments=2, fam_length=0, stop_gradient="blocks"), 0),
        (dict(memory_segments=0), 6),
        (dict(memory_segments=1), 6),
        (dict(memory_segments=0, fam_residual=False), 6),
        (dict(memory_segments=0, static_query=True), 6),
        (dict(memory_segments=0, stop_gradient="feedback"), 2),
        (dict(memory_segments=0, stop_gradient="feedback", static_query=True), 2),
        (dict(memory_segments=1, stop_gradient="blocks"), 0),
    ],
)
def test_blocks_back_that_the_gradient_reaches(changes, seen):
    """BSWA: M blocks a layer. FAM: all; learning from the next block alone: one a layer."""
    model = make(block_size=4, **changes)
    assert reach(model, 7) == [False] * (6 - seen) + [True] * (seen + 1)


def test_fam_remembers_what_a_window_forgets():
    for F in (0, 2):
        model = make(memory_segments=1, fam_length=F)
        ids = torch.randint(V, (1, 40))
        other = torch.cat(((ids[:, :1] + 1) % V, ids[:, 1:]), 1)
        moved = (model(ids)[0] - model(other)[0])[0, 15:].abs().amax(-1)  # beyond 2 layers of 1 segment
        assert (moved > 0).all() if F > 0 else (moved == 0).all()


@pytest.mark.parametrize("M, F", [(0, 2), (2, 2), (2, 0)])
def test_state_does_not_grow(M, F):
    model = make(memory_segments=M, fam_length=F)
    sizes, state = set(), None
    with torch.no_grad():
        for T in (15, 5, 35, 500, 1000):
            state = model(torch.randint(V, (2, T)), state)[1]
            tensors = (state.fam, state.keys, state.values)
            sizes.add(sum(tensor.untyped_storage().nbytes() for tensor in tensors))
    assert state.position == 1555
    assert len(sizes) == 1


@pytest.mark.full
def test_a_million_tokens_stream_through_a_constant_state():
    """And what comes after them is as finite, and as dependent on the text, as after the first thousand."""
    model = make(memory_segments=1, fam_length=2, block_size=64).float()
    g, state, sizes = torch.Generator().manual_seed(0), None, set()
    with torch.inference_mode():
        for _ in range(64):
            logits, state = model(torch.randint(V, (1, 2**14), generator=g), state)
            sizes.add(sum(tensor.numel() for tensor in (state.fam, state.keys, state.values)))
    assert state.position == 2**20 and len(sizes) == 1
    assert logits.isfinite().all() and logits.std(1).min() > 0.01


def test_a_constant_offset_of_positions_changes_nothing():
    model = make()
    ids = torch.randint(V, (2, 23))
    state = model.initial_state(2)
    moved, after = model(ids, replace(state, position=4321))
    torch.testing.assert_close(moved, model(ids)[0], rtol=0, atol=1e-9)
    assert after.position == 4344
    with torch.no_grad():
        model, state = model.float(), replace(state, fam=state.fam.float())
        state = replace(state, keys=state.keys.float(), values=state.values.float())
        moved = model(ids, replace(state, position=10_000_000))[0]
        torch.testing.assert_close(moved, model(ids)[0], rtol=0, atol=1e-3)


def test_random_state_passing():
    """A FAM of another text is a state like any other: it is read, and the first update adds it."""
    model = make(memory_segments=0)
    saved = model(torch.randint(V, (3, 15)))[1].fam[:, 1:2].detach()
    ids = torch.randint(V, (2, 10))
    state = replace(model.initial_state(2), fam=saved.expand(-1, 2, -1, -1), fresh=False)
    passed, fresh = model(ids, state)[0], model(ids, replace(state, fresh=True))[0]
    assert (passed[:, :5] - model(ids)[0][:, :5]).abs().max() > 1e-6
    assert torch.equal(passed[:, :5], fresh[:, :5])
    assert (passed[:, 5:] - fresh[:, 5:]).abs().max() > 1e-6


def test_detached_state_stops_the_gradient():
    model = make()
    _, state = model(torch.tensor([[1, 2, 3, 4, 5, 6, 7]]))
    for detached in (False, True):
        logits = model.hidden(torch.tensor([[11, 12, 13]]), state.detach() if detached else state)[0]
        grad = torch.autograd.grad(logits.square().sum(), model.embedding.weight, retain_graph=True)[0]
        assert (grad[1:8].abs().amax(-1) > 0).tolist() == [not detached] * 7
        assert (grad[11:14].abs().amax(-1) > 0).all()


@pytest.mark.parametrize("changes", [{}, dict(separate_projections=True, static_query=True), dict(fam_residual=False)])
def test_every_weight_gets_a_finite_gradient(changes):
    model = make(**changes)
    model(torch.randint(V, (2, 17)))[0].logsumexp(-1).sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad.isfinite().all() and weight.grad.abs().sum() > 0, name


def test_only_the_prompt_is_new():
    assert make().n_parameters == make(fam_length=0).n_parameters + SIZES["fam_length"] * SIZES["d_model"]


def test_initial_scales():
    model = TransformerFAM(FAMConfig(500, 96, 8, 4, 256, 16, 0, 64, separate_projections=True, static_query=True))
    for name, weight in model.named_parameters():
        if weight.dim() == 1:
            assert (weight == 1).all()
        else:
            residual = "out." in name or "down" in name
            expected = 1 / math.sqrt(weight.shape[1] * (16 if residual else 1))
            assert weight.std().item() == pytest.approx(expected, rel=0.05), name


@pytest.mark.parametrize("changes", [{}, dict(fam_residual=False), dict(fam_length=0)])
def test_trains_under_autocast_and_moves_to_bfloat16(changes):
    model = make(d_model=48, **changes).float()
    ids = torch.randint(V, (2, 17))
    expected = model(ids)[0]
    with torch.autocast("cpu", torch.bfloat16):
        logits, state = model(ids)
        rest, _ = model(ids, state)
    (logits.float().logsumexp(-1).sum() + rest.float().sum()).backward()
    assert all(weight.grad.isfinite().all() for weight in model.parameters() if weight.grad is not None)
    torch.testing.assert_close(logits.float(), expected, rtol=0.1, atol=0.5)
    with torch.no_grad():
        logits = read_in_pieces(model.bfloat16(), ids, 7)
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), expected, rtol=0.1, atol=0.5)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(vocab_size=0), "vocab_size = 0: must be a whole number of at least 1"),
        (dict(block_size=2.0), "block_size = 2.0: must be a whole number of at least 1"),
        (dict(memory_segments=-1), "memory_segments = -1: must be a whole number of at least 0"),
        (dict(fam_length=True), "fam_length = True: must be a whole number of at least 0"),
        (dict(n_heads=5), "n_heads = 5: must be half of d_model = 24 or a divisor"),
        (dict(n_heads=8), "n_heads = 8: must be half of d_model = 24 or a divisor"),
        (dict(rope_theta=math.inf), "rope_theta = inf: must be a finite number above 0"),
        (dict(norm_eps="1"), "norm_eps = '1': must be a finite number above 0"),
        (dict(stop_gradient="fam"), "stop_gradient = 'fam': must be None, 'feedback' or 'blocks'"),
        (dict(static_query=1), "static_query = 1: must be True or False"),
        (dict(fam_length=0, fam_residual=False), "fam_residual = False: must be True when fam_length = 0"),
        (dict(fam_length=0, static_query=True), "static_query = True: must be False when fam_length = 0"),
    ],
)
def test_bad_sizes_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        FAMConfig(**{**SIZES, **changes})


def test_bad_input_is_named():
    model = make()
    ids = torch.zeros(2, 3, dtype=torch.long)
    state = model(ids)[1]
    with pytest.raises(ValueError, match=r"ids of shape \(3,\): must be \(B, T\)"):
        model(ids[0])
    with pytest.raises(ValueError, match=r"ids of shape \(2, 0\)"):
        model(ids[:, :0])
    with pytest.raises(ValueError, match=r"FAM of shape \(2, 2, 2, 24\): must be \(2, 1, 2, 24\)"):
        model(ids[:1], state)
    with pytest.raises(ValueError, match=r"keys of shape \(2, 2, 3, 12, 8\): must be \(2, 2, 3\) and up to 9 tokens"):
        model(ids, replace(state, keys=state.keys.repeat(1, 1, 1, 4, 1)))


def rmt(block_size=5, memory_length=2):
    torch.manual_seed(0)
    config = DecoderConfig(V, 24, 2, 3, 3, 20, max_positions=9)
    return scaled(RecurrentMemoryTransformer(config, block_size, memory_length))


def test_recurrent_memory_transformer():
    model = rmt()
    ids = torch.randint(V, (2, 17))
    whole, memory = model(ids)
    first, carried = model(ids[:, :10])
    torch.testing.assert_close(torch.cat((first, model(ids[:, 10:], carried)[0]), 1), whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(model(ids[:, :15])[1], memory, rtol=0, atol=1e-12)
    for t in (0, 4, 5, 16):
        changed = ids.clone()
        changed[:, t] = (changed[:, t] + 1) % V
        moved = (model(changed)[0] - whole).abs().amax(-1)
        assert (moved[:, :t] == 0).all() and (moved[:, t:] > 1e-9).all()
    with torch.no_grad():
        one = model.decoder.embedding(ids[:, :5])
        x = torch.cat((model.memory.expand(2, -1, -1), one, model.memory.expand(2, -1, -1)), 1)
        cos, sin = model.decoder.cos[:9, None], model.decoder.sin[:9, None]
        for block in model.decoder.blocks:
            x = block(x, cos=cos, sin=sin, causal=True)
    torch.testing.assert_close(x[:, -2:], model(ids[:, :5])[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(block_size=0), "block_size = 0: must be a whole number of at least 1"),
        (dict(memory_length=1.0), "memory_length = 1.0: must be a whole number of at least 1"),
        (dict(memory_length=3), "max_positions = 9: must be at least 11"),
    ],
)
def test_bad_recurrent_memory_sizes_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        rmt(**changes)
