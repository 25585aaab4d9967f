"""The Triton kernels in Triton's interpreter on the CPU, against the forms that they stand in for on a GPU."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

MASK = """
import torch
from paperwalk.kernels.goldfish_mask import torch_impl, triton_impl
for shape in [(1, 1), (2, 13), (3, 63), (1, 100), (2, 1500), (0, 5), (2, 0)]:
    ids = torch.randint(-5, 50_000, shape, generator=torch.Generator().manual_seed(0))
    for k, h in [(4, 13), (2, 1), (3, 40)]:
        ours = triton_impl.hash_mask(ids, k, h)
        assert ours.shape == ids.shape and torch.equal(ours, torch_impl.hash_mask(ids, k, h)), (shape, k, h)
"""
LOSS = """
import torch
from paperwalk.kernels.linear_cross_entropy import torch_impl, triton_impl
for rows, vocab_size in [(1, 1), (2, 5), (3, 63), (2, 100), (2, 5000), (0, 7)]:
    for dtype in (torch.float32, torch.bfloat16):
        generator = torch.Generator().manual_seed(0)
        logits = (5 * torch.randn(rows, vocab_size, generator=generator)).to(dtype)
        targets = torch.randint(vocab_size, (rows,), generator=generator)
        for wants_slope in (True, False):
            wanted, slope = torch_impl._loss_and_slope(logits.clone(), targets, wants_slope)
            row = torch.full((rows, vocab_size + 3), float("nan"), dtype=dtype)  # neighbours that must not be read
            row[:, :vocab_size] = logits
            losses = triton_impl.loss_and_slope_(row[:, :vocab_size], targets, wants_slope)
            torch.testing.assert_close(losses, wanted)
            torch.testing.assert_close(row[:, :vocab_size], slope if wants_slope else logits)
            assert row[:, vocab_size:].isnan().all()
"""
FAM = """
import torch
from paperwalk.kernels.fam_scan import FAMWeights, fam_scan, naive, torch_impl, triton_impl
torch_impl._attention = lambda *_: (triton_impl.attend, triton_impl.attend_backward)
for N, B, H, f, b, d in [(1, 1, 1, 1, 1, 2), (3, 2, 3, 2, 5, 4), (2, 1, 2, 17, 63, 6), (2, 1, 1, 3, 140, 34)]:
    for fresh in (True, False):
        torch.manual_seed(N)
        D, d_ff = H * d, 7
        shapes = [(B, f, D), (N, B, H, b, d), (N, B, H, b, d), (D,), (3 * D, D), (D, D), (D,), (2 * d_ff, D), (D, d_ff)]
        given = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
        angle = torch.randn(N, f, 1, d, dtype=torch.float64)
        rotary, weights = (angle.cos(), angle.sin()), FAMWeights(*given[3:])
        results = [scan(*given[:3], rotary, weights, 1e-3, fresh) for scan in (fam_scan, naive.fam_scan)]
        upstream = [torch.randn_like(each) for each in results[0]]
        gradients = [torch.autograd.grad(result, given, upstream) for result in results]
        for one, other in (*zip(*results), *zip(*gradients)):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
"""
FAM_POISONED = """
import torch
from paperwalk.kernels.fam_scan import torch_impl, triton_impl
B, H = 2, 2
draw = lambda *shape: torch.randn(shape, dtype=torch.float64)
fill = lambda: draw(B, H, S, d).index_fill_(2, torch.arange(f), float("nan"))  # places to be written, not read
empty = torch.Tensor.new_empty
torch.Tensor.new_empty = lambda *given, **options: empty(*given, **options).fill_(float("nan"))
SHORT = [(3, 4, 70), (17, 24, 60), (64, 64, 96), (100, 24, 137)]
TALL = [(64, 64, 96), (100, 80, 137), (256, 16, 288)]
for many, sizes in [(128, SHORT), (1, TALL)]:
    triton_impl.MANY, triton_impl.TALL_MOST_D = many, 128
    for f, d, S in sizes:
        torch.manual_seed(0)
        heads, cos, sin, keys, values = draw(B, f, 3, H, d), draw(f, 1, d), draw(f, 1, d), fill(), fill()
        ours = triton_impl.attend(heads, cos, sin, our_keys := keys.clone(), our_values := values.clone())
        wanted = torch_impl.attend(heads, cos, sin, keys, values)
        for one, other in zip((*ours, our_keys, our_values), (*wanted, keys, values)):
            torch.testing.assert_close(one, other)
        y, later = draw(B * f, H * d), (draw(B, H, S, d), draw(B, H, S, d))
        given = y, wanted[2], wanted[1], wanted[0], keys, values, *later, cos, sin
        for one, other in zip(triton_impl.attend_backward(*given), torch_impl.attend_backward(*given)):
            torch.testing.assert_close(one, other)
"""


@pytest.mark.parametrize("program", [MASK, LOSS, FAM, FAM_POISONED], ids=["mask", "loss", "fam", "fam, poisoned"])
def test_in_the_interpreter(program):
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
