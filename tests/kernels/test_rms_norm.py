"""Normalisation: every form against the formula in float64."""

import pytest
import torch

from paperwalk.kernels import rms_norm as package
from paperwalk.kernels.rms_norm import naive, numba_impl, rms_norm

SHAPES = [(1, 1), (63, 100), (2, 1, 63), (3, 5, 2000), (0, 8), (64, 1, 256)]


def inputs(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g) * 3, torch.rand(shape[-1], generator=g) + 0.5


@pytest.mark.parametrize("scale", [1, 1e-4, 1e6], ids="{:g}".format)  # at 1e-4 eps counts
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("form", [rms_norm, numba_impl.rms_norm], ids=["chosen", "compiled"])
def test_every_form_equals_the_formula(form, shape, scale):
    x, weight = inputs(*shape)
    x *= scale
    with torch.inference_mode():
        result = form(x, weight, 1e-6)
    expected = naive.rms_norm(x.double(), weight.double(), 1e-6)
    assert result.shape == x.shape and result.dtype == torch.float32
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-6)  # float32 sums of up to 2,000 squares


def test_strided_rows_give_what_contiguous_ones_do():
    x, weight = inputs(6, 8)
    wide = torch.full((8, 12), torch.nan)
    wide[:, ::2] = x.T
    assert torch.equal(numba_impl.rms_norm(wide[:, ::2].T, weight, 1e-6), numba_impl.rms_norm(x, weight, 1e-6))


def test_the_result_is_no_view_of_the_input_and_nan_stays_in_its_row():
    x, weight = inputs(4, 8)
    x[1, 3] = torch.nan
    before = x.clone()
    result = numba_impl.rms_norm(x, weight, 1e-6)
    torch.testing.assert_close(x, before, equal_nan=True)
    assert result.isnan().all(1).tolist() == [False, True, False, False]


@pytest.mark.parametrize("shape", [(7,), (9,), (1, 8)], ids=str)
def test_a_weight_that_does_not_fit_is_refused(shape):
    with pytest.raises(ValueError, match=r"weight of shape .*: must be \(8,\)"):
        rms_norm(torch.ones(3, 8), torch.ones(shape), 1e-6)


def test_the_compiled_form_is_taken_only_where_it_is_right(monkeypatch):
    monkeypatch.setattr(numba_impl, "rms_norm", lambda *given: pytest.fail("compiled"))
    x, weight = inputs(64, 8)
    with torch.no_grad():
        rms_norm(x.double(), weight.double(), 1e-6)
        rms_norm(torch.zeros(package.COMPILED_UP_TO // 8 + 1, 8), weight, 1e-6)
    x.requires_grad_()
    rms_norm(x, weight, 1e-6).sum().backward()
    assert x.grad is not None
