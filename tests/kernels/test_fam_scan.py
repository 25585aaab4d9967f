"""The scan with its gradient written out against autograd's, and the ablations against what they mean."""

import pytest
import torch

from paperwalk.kernels.fam_scan import FAMWeights, fam_scan, naive

D_FF, EPS = 7, 1e-3


def inputs(N=3, B=2, H=3, f=2, b=5, d=4, dtype=torch.float64, seed=0):
    """fam, own_k, own_v, weights (all with gradient) and rotary tables."""
    torch.manual_seed(seed)
    D = H * d
    shapes = [(B, f, D), (N, B, H, b, d), (N, B, H, b, d), (D,), (3 * D, D), (D, D), (D,), (2 * D_FF, D), (D, D_FF)]
    fam, own_k, own_v, *weights = (torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes)
    angle = torch.randn(N, f, 1, d, dtype=dtype)
    return fam, own_k, own_v, FAMWeights(*weights), (angle.cos(), angle.sin())


@pytest.mark.parametrize(
    "N, B, H, f, b, d", [(1, 1, 1, 1, 1, 2), (3, 2, 3, 2, 5, 4), (4, 1, 2, 9, 3, 6), (2, 5, 1, 1, 63, 2)]
)
@pytest.mark.parametrize("fresh", [True, False])
def test_equals_naive_forward_and_gradient(N, B, H, f, b, d, fresh):
    fam, own_k, own_v, weights, rotary = inputs(N, B, H, f, b, d)
    got = fam_scan(fam, own_k, own_v, rotary, weights, EPS, fresh)
    expected = naive.fam_scan(fam, own_k, own_v, rotary, weights, EPS, fresh)
    upstream = [torch.randn_like(each) for each in expected]
    gradients = [torch.autograd.grad(out, (fam, own_k, own_v, *weights), upstream) for out in (got, expected)]
    for one, other in (*zip(got, expected), *zip(*gradients)):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("result", range(3))
def test_gradient_of_each_result_alone(result):
    fam, own_k, own_v, weights, rotary = inputs()
    gradients = []
    for scan in (fam_scan, naive.fam_scan):
        out = scan(fam, own_k, own_v, rotary, weights, EPS, False)[result]
        gradients.append(torch.autograd.grad(out.square().sum(), (fam, own_k, own_v, *weights), materialize_grads=True))
    for one, other in zip(*gradients):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_reads_tensors_that_are_not_contiguous():
    fam, own_k, own_v, weights, rotary = inputs()
    expected = fam_scan(fam, own_k, own_v, rotary, weights, EPS, True)
    strided = [each.detach().movedim(0, 2).contiguous().movedim(2, 0) for each in (own_k, own_v)]
    got = fam_scan(fam.detach().mT.contiguous().mT, *strided, rotary, weights, EPS, True)
    for one, other in zip(got, expected):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "ablation", [{}, dict(residual=False), dict(stop_gradient="feedback"), dict(stop_gradient="blocks")]
)
@pytest.mark.parametrize("static", [False, True])
def test_blocks_together_equal_blocks_one_by_one(ablation, static):
    fam, own_k, own_v, weights, (cos, sin) = inputs(N=4)
    query = torch.randn(fam.shape[1:], dtype=fam.dtype) if static else None
    whole = fam_scan(fam, own_k, own_v, (cos, sin), weights, EPS, True, query=query, **ablation)
    state, read_k = fam, []
    for n in range(4):
        at = slice(n, n + 1)
        state, k, _ = fam_scan(
            state, own_k[at], own_v[at], (cos[at], sin[at]), weights, EPS, n == 0, query=query, **ablation
        )
        read_k.append(k)
    torch.testing.assert_close(state, whole[0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(torch.cat(read_k), whole[1], rtol=1e-10, atol=1e-10)


def test_no_residual_is_a_first_update_at_every_block():
    fam, own_k, own_v, weights, (cos, sin) = inputs(N=3)
    state = fam
    for n in range(3):
        at = slice(n, n + 1)
        state = fam_scan(state, own_k[at], own_v[at], (cos[at], sin[at]), weights, EPS, fresh=True)[0]
    got = fam_scan(fam, own_k, own_v, (cos, sin), weights, EPS, fresh=False, residual=False)[0]
    torch.testing.assert_close(got, state, rtol=1e-10, atol=1e-10)


def test_static_query_replaces_the_fam_as_query_alone():
    fam, own_k, own_v, weights, rotary = inputs(N=1, B=1)
    plain = fam_scan(fam, own_k, own_v, rotary, weights, EPS, False)
    asked = [fam_scan(fam, own_k, own_v, rotary, weights, EPS, False, query=query) for query in (fam[0], -fam[0])]
    torch.testing.assert_close(asked[0][0], plain[0], rtol=1e-10, atol=1e-10)
    assert (asked[1][0] - plain[0]).abs().max() > 1e-3
    torch.testing.assert_close(asked[1][1], plain[1])  # keys are still the FAM's


@pytest.mark.parametrize(
    "stop, reached",
    [(None, [True, True, True, False]), ("feedback", [False, False, True, False]), ("blocks", [False] * 4)],
)
def test_stops_cut_gradients_and_change_no_value(stop, reached):
    fam, own_k, own_v, weights, rotary = inputs(N=4)
    plain = fam_scan(fam, own_k, own_v, rotary, weights, EPS, False)
    stopped = fam_scan(fam, own_k, own_v, rotary, weights, EPS, False, stop_gradient=stop)
    for one, other in zip(stopped, plain):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    written = stopped[1][3, :, :, : fam.shape[1]].square().sum()  # keys of the FAM that block 3 reads
    grad = torch.autograd.grad(written, own_v, materialize_grads=True)[0]
    assert [block.abs().max().item() > 0 for block in grad] == reached
