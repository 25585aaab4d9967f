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


@pytest.mark.parametrize("program", [MASK, LOSS], ids=["mask", "loss"])
def test_in_the_interpreter(program):
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
