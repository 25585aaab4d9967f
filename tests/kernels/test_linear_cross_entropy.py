"""The head and the loss in one against all logits: loss and gradients, odd shapes, poisoned memory, bad input."""

import itertools

import pytest
import torch

from paperwalk.kernels.linear_cross_entropy import linear_cross_entropy, naive, torch_impl

SHAPES = [(1, 8, 5), (63, 16, 100), (100, 7, 63), (257, 32, 2000)]  # rows, D, V


def inputs(rows, d_model, vocab_size, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, d_model, generator=generator, dtype=dtype).requires_grad_()
    weight = torch.randn(vocab_size, d_model, generator=generator, dtype=dtype).requires_grad_()
    targets = torch.randint(vocab_size, (rows,), generator=generator)
    return hidden, weight, targets, torch.rand(rows, generator=generator) >= 0.3


def loss_and_gradients(loss, hidden, weight, targets, keep):
    value = loss(hidden, weight, targets, keep)
    return value.detach(), *torch.autograd.grad(3 * value, (hidden, weight))


@pytest.mark.parametrize(("shape", "chunk"), list(itertools.product(SHAPES, [1, 1000, 2**21])))
def test_loss_and_gradients_are_those_of_all_logits(shape, chunk, monkeypatch):
    monkeypatch.setitem(torch_impl.CHUNK, "cpu", chunk)
    given = inputs(*shape)
    for keep in (given[3], None, torch.ones_like(given[3])):
        ours = loss_and_gradients(linear_cross_entropy, *given[:3], keep)
        truth = loss_and_gradients(naive.linear_cross_entropy, *given[:3], keep)
        for one, other in zip(ours, truth):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("chunk", [1, 1000, 2**21])
def test_of_fixed_shapes_loss_and_gradients_are_the_same(chunk, monkeypatch):
    """As a recorded step takes them: all rows in the products, the dropped ones without effect."""
    monkeypatch.setitem(torch_impl.CHUNK, "cpu", chunk)
    given = inputs(63, 16, 100)
    truth = loss_and_gradients(naive.linear_cross_entropy, *given)
    for one, other in zip(loss_and_gradients(torch_impl.LinearCrossEntropy.apply, *given), truth):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_dropped_rows_cost_nothing_and_may_hold_anything():
    hidden, weight, targets, keep = inputs(63, 16, 100)
    truth = loss_and_gradients(naive.linear_cross_entropy, hidden, weight, targets, keep)
    with torch.no_grad():
        hidden[~keep] = float("nan")
    targets[~keep] = -100
    loss, d_hidden, d_weight = loss_and_gradients(linear_cross_entropy, hidden, weight, targets, keep)
    torch.testing.assert_close(loss, truth[0])
    torch.testing.assert_close(d_weight, truth[2])
    assert not d_hidden[~keep].any()
    torch.testing.assert_close(d_hidden[keep], truth[1][keep])


@pytest.mark.parametrize("rows", [0, 5])
def test_nothing_kept_is_no_loss_and_no_gradient(rows):
    hidden, weight, targets, _ = inputs(rows, 8, 11)
    loss, d_hidden, d_weight = loss_and_gradients(
        linear_cross_entropy, hidden, weight, targets, torch.zeros(rows, dtype=torch.bool)
    )
    assert loss == 0 and d_hidden.shape == hidden.shape and not d_hidden.any() and not d_weight.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_dtypes(dtype):
    given = inputs(100, 32, 200)
    low = [t.detach().to(dtype).requires_grad_() for t in given[:2]]
    ours = loss_and_gradients(linear_cross_entropy, *low, *given[2:])
    exact = loss_and_gradients(
        naive.linear_cross_entropy, *(t.detach().double().requires_grad_() for t in low), *given[2:]
    )
    assert ours[0].dtype == torch.float32 and ours[1].dtype == ours[2].dtype == dtype
    for one, other in zip(ours, exact):
        error = (one.double() - other).norm() / other.norm()
        assert error < (1e-5 if dtype == torch.float32 else 1e-2)


def test_under_autocast_products_are_bfloat16_and_losses_float32():
    given = inputs(100, 32, 200, torch.float32)
    rounded = [t.detach().bfloat16().requires_grad_() for t in given[:2]]
    with torch.autocast("cpu", torch.bfloat16):
        ours = loss_and_gradients(linear_cross_entropy, *given)
    alone = loss_and_gradients(linear_cross_entropy, *rounded, *given[2:])
    assert [t.dtype for t in ours] == [torch.float32] * 3  # the gradients are those of the weights as they are kept
    for one, other in zip(ours, alone):
        torch.testing.assert_close(one, other.float(), rtol=0, atol=0)


def test_models_of_a_stack_get_what_each_gets_alone():
    alone = [inputs(63, 16, 100, seed=seed) for seed in range(3)]
    together = [torch.stack([each[n].detach() for each in alone]) for n in range(4)]
    weights = [t.requires_grad_() for t in together[:2]]
    for keep in (True, False):
        given = [*together[:3], *together[3:][:keep]]
        losses = torch.func.vmap(linear_cross_entropy)(*given)
        gradients = torch.autograd.grad(losses.sum(), weights)
        for n, each in enumerate(alone):
            value = linear_cross_entropy(*each[: 3 + keep])
            wanted = value.detach(), *torch.autograd.grad(value, each[:2])
            for one, other in zip((losses[n].detach(), *(g[n] for g in gradients)), wanted):
                torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_batches_of_any_shape_and_tied_weights():
    _, weight, _, _ = inputs(1, 16, 50)
    ids = torch.randint(50, (2, 3, 8))
    truth, ours = (
        torch.autograd.grad(loss(weight[ids], weight, ids.roll(-1, -1), ids % 3 > 0), weight)[0]
        for loss in (naive.linear_cross_entropy, linear_cross_entropy)
    )
    torch.testing.assert_close(ours, truth)


def test_micro_batches_add_up():
    hidden, weight, targets, keep = inputs(100, 16, 63)
    whole = loss_and_gradients(linear_cross_entropy, hidden, weight, targets, keep)
    parts = [
        loss_and_gradients(
            linear_cross_entropy, hidden[part].detach().requires_grad_(), weight, targets[part], keep[part]
        )
        for part in (slice(0, 37), slice(37, 100))
    ]
    torch.testing.assert_close(parts[0][0] + parts[1][0], whole[0])
    torch.testing.assert_close(parts[0][2] + parts[1][2], whole[2])


def test_only_the_gradient_that_is_asked_for_is_made():
    hidden, weight, targets, keep = inputs(10, 8, 11)
    for one, other in ((hidden, weight.detach()), (hidden.detach(), weight)):
        loss = linear_cross_entropy(one, other, targets, keep)
        loss.backward()
    assert hidden.grad is not None and weight.grad is not None
    with torch.no_grad():
        assert linear_cross_entropy(hidden, weight, targets, keep) > 0


def test_extreme_logits_stay_finite():
    hidden = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0], [0.5]], requires_grad=True)
    loss, d_hidden, d_weight = loss_and_gradients(linear_cross_entropy, hidden, weight, torch.tensor([0, 0]), None)
    assert loss == 2e4 and d_hidden.isfinite().all() and d_weight.isfinite().all()


H, W, T = torch.zeros(4, 3), torch.zeros(5, 3), torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ((H, torch.zeros(5, 2), T), ValueError, r"weight of shape \(5, 2\): must be \(V, D\) with hidden's D = 3"),
        ((H, W.double(), T), TypeError, "weight = torch.float64: must be hidden's floating dtype"),
        ((H.long(), W.long(), T), TypeError, "weight = torch.int64"),
        ((H, W, T[:3]), ValueError, r"targets = torch.int64 \(3,\): must be int64 of shape \(4,\)"),
        ((H, W, T.int()), ValueError, "targets = torch.int32"),
        ((H, W, T, torch.ones(4)), ValueError, "keep = torch.float32"),
        ((H, W, T + 5), IndexError, r"targets: 5 is kept, and outside \[0, 5\)"),
        ((H, W, T - 1), IndexError, "targets: -1 is kept"),
    ],
)
def test_bad_input_is_named(given, error, said):
    with pytest.raises(error, match=said):
        linear_cross_entropy(*given)
