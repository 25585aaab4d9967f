"""The Triton kernels on a GPU against the naive forms in float64: results and gradients.

A tolerance is on the largest difference, as a share of the largest exact number: rounding of a sum shows at the scale
of its terms, so that numbers near 0 have no small error of their own.
"""

import pytest
import torch

from paperwalk.kernels import fam_scan as scan
from paperwalk.kernels import goldfish_mask as mask
from paperwalk.kernels import linear_cross_entropy as loss
from paperwalk.kernels.fam_scan import naive as naive_scan
from paperwalk.kernels.goldfish_mask import naive as naive_mask
from paperwalk.kernels.linear_cross_entropy import naive as naive_loss

pytestmark = pytest.mark.gpu
DEVICE = "cuda"
# float32 rounds by 6e-8; sums of up to 1e5 terms and a FAM's three updates, one after the other, make it more: on a CPU
# the plain forms are off by at most 9e-6 here. TF32, which rounds by 5e-4, would stand out. bfloat16 rounds by 2e-3, of
# a logit of 5 that is 1e-2; on a CPU at most 5e-3.
SHARE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}


@pytest.fixture(autouse=True)
def exact_products():
    """Matrix products in float32 proper, not TF32."""
    kept = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(kept)


def assert_near(ours, exact, share):
    assert ours.shape == exact.shape
    assert ours.isfinite().all()
    if exact.numel():  # where all that is exact is 0, ours is too
        assert (ours.double() - exact).abs().max() <= share * exact.abs().max()


def assert_same_gradients(ours, exact, given, precise, share):
    """ours and exact: results of two forms of given and of precise, its copy in float64."""
    upstream = [torch.randn_like(each) for each in exact]
    gradients = torch.autograd.grad(ours, given, [each.to(one.dtype) for each, one in zip(upstream, ours)])
    wanted = torch.autograd.grad(exact, precise, upstream)
    for one, other in (*zip(ours, exact), *zip(gradients, wanted)):
        assert_near(one, other, share)


@pytest.mark.parametrize("tokens", [0, 1, 63, 100, 2000])
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_mask(rows, tokens):
    ids = torch.randint(50_000, (rows, tokens), generator=torch.Generator().manual_seed(0))
    for k, h in [(4, 13), (3, 1), (32, 50)]:
        ours = mask.goldfish_mask(ids.to(DEVICE), k, h)
        assert ours.device.type == DEVICE
        assert ours.tolist() == [naive_mask.hash_mask(row, k, h) for row in ids.tolist()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "rows, d_model, vocab_size", [(1, 8, 1), (5, 24, 20), (63, 48, 100), (100, 64, 5003), (2, 32, 131_072), (0, 8, 7)]
)
@pytest.mark.parametrize("kept", ["all", "some", "none"])
def test_loss(rows, d_model, vocab_size, dtype, kept):
    torch.manual_seed(0)
    hidden = torch.randn(rows, d_model, device=DEVICE)
    weight = torch.randn(vocab_size, d_model, device=DEVICE) / d_model**0.5
    targets = torch.randint(vocab_size, (rows,), device=DEVICE)
    keep = None if kept == "all" else (torch.rand(rows, device=DEVICE) < 0.7) & (kept == "some")
    given = [each.to(dtype).requires_grad_() for each in (hidden, weight)]
    precise = [each.detach().double().requires_grad_() for each in given]
    ours = loss.linear_cross_entropy(*given, targets, keep)
    exact = naive_loss.linear_cross_entropy(*precise, targets, keep)
    gradients = torch.autograd.grad(ours, given)
    for one, other in ((ours, exact), *zip(gradients, torch.autograd.grad(exact, precise))):
        assert_near(one, other, SHARE[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("vocab_size", [1, 20, 64, 100, 2048, 5003])
def test_loss_keeps_to_its_row(vocab_size, dtype):
    from paperwalk.kernels.linear_cross_entropy.triton_impl import loss_and_slope_

    torch.manual_seed(0)
    rows = torch.full((7, vocab_size + 3), float("nan"), dtype=dtype, device=DEVICE)
    logits = rows[:, :vocab_size].normal_(std=3)
    exact = logits.double().requires_grad_()
    targets = torch.randint(vocab_size, (7,), device=DEVICE)
    wanted = torch.nn.functional.cross_entropy(exact, targets, reduction="none")
    (slope,) = torch.autograd.grad(wanted.sum(), exact)
    assert_near(loss_and_slope_(logits, targets, False), wanted.detach(), SHARE[torch.float32])
    assert torch.equal(logits.double(), exact.detach())
    assert_near(loss_and_slope_(logits, targets, True), wanted.detach(), SHARE[torch.float32])
    assert_near(logits, slope, 4e-3 if dtype == torch.bfloat16 else SHARE[dtype])  # rounded once, as it is written
    assert rows[:, vocab_size:].isnan().all()


@pytest.mark.parametrize("f, d", [(1, 16), (4, 16), (16, 64), (17, 24), (64, 64), (256, 64), (16, 128), (48, 128)])
@pytest.mark.parametrize("many", [1, 128], ids=["tall tiles", "short tiles"])
@pytest.mark.parametrize("block_size", [16, 63, 256])
@pytest.mark.parametrize("fresh", [True, False])
def test_fam(f, d, block_size, fresh, many, monkeypatch):
    from paperwalk.kernels.fam_scan import triton_impl

    if many == 1 and (f < triton_impl.TALL or d > triton_impl.TALL_MOST_D):
        pytest.skip("no tall tile")
    monkeypatch.setattr(triton_impl, "MANY", many)
    torch.manual_seed(0)
    N, B, H, d_ff, eps = 3, 2, 3, 40, 1e-5
    D = H * d
    draw = lambda *shape: torch.randn(shape, device=DEVICE)
    matrices = [draw(*shape) / shape[1] ** 0.5 for shape in ((3 * D, D), (D, D), (2 * d_ff, D), (D, d_ff))]
    weights = 1 + 0.1 * draw(D), *matrices[:2], 1 + 0.1 * draw(D), *matrices[2:]
    given = [draw(B, f, D), draw(N, B, H, block_size, d), draw(N, B, H, block_size, d), *weights]
    precise = [each.double().requires_grad_() for each in given]
    given = [each.requires_grad_() for each in given]
    angle = draw(N, f, 1, d).double()
    rotary = angle.cos(), angle.sin()
    assert scan.torch_impl._attention(given[0], f, d)[0] is triton_impl.attend
    single = [each.float() for each in rotary]
    ours = scan.fam_scan(*given[:3], single, scan.FAMWeights(*given[3:]), eps, fresh)
    exact = naive_scan.fam_scan(*precise[:3], rotary, scan.FAMWeights(*precise[3:]), eps, fresh)
    assert_same_gradients(ours, exact, given, precise, SHARE[torch.float32])
