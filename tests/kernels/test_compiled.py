"""The Triton kernels as a GPU would get them, compiled here: they fit an SM, keep to registers and compile soon."""

import importlib
import os
import re
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import pytest
import torch

from paperwalk import runs
from paperwalk.kernels.fam_scan import torch_impl

triton = pytest.importorskip("triton")

from benchmarks import kernels  # noqa: E402
from paperwalk.kernels.fam_scan import triton_impl as fam  # noqa: E402

pytestmark = pytest.mark.full

MOST_SECONDS = 60  # to compile one kernel; the slowest takes about ten on a core
LAUNCHES = kernels.reached()
# Tiles are as tall as 64 rows where many heads of all rows share a GPU, and the compiler sees f = 1 as a constant.
SIZES = [(16, 64, 1), (256, 64, 32), (16, 128, 1), (256, 128, 32)]
FURTHER = [
    launch
    for f, d, rows in SIZES
    for launch in (*kernels.fam_forward(f, d, 256, 8, rows), *kernels.fam_backward(f, d, 256, 8, rows))
]


@pytest.fixture(scope="module", autouse=True)
def nothing_compiled_before(tmp_path_factory):
    """Else the seconds would be those of a cache."""
    with mock.patch.dict(os.environ, TRITON_CACHE_DIR=str(tmp_path_factory.mktemp("triton"))):
        yield


@pytest.mark.parametrize("capability", kernels.SHARED, ids="sm_{}".format)
@pytest.mark.parametrize("launch", LAUNCHES + FURTHER, ids=lambda launch: f"{launch.kernel.__name__} {launch.sizes}")
def test_fits_an_sm_without_spills(launch, capability):
    compiled = kernels.build(launch, capability)
    assert compiled.shared <= kernels.SHARED[capability]
    assert (compiled.spills, compiled.stack) == (0, 0)
    assert compiled.seconds < MOST_SECONDS
    assert (compiled.tensor_core > 0) == (launch.kernel in (fam._attend, fam._attend_backward))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_loss_reads_a_row_before_it_is_overwritten(dtype):
    """The target's logit first of all; then sums; all threads wait; only then the slope takes the row's place."""
    (launch,) = kernels.cross_entropy(1000, dtype)
    code = kernels.compile_for(launch, 90).asm["ttir"].splitlines()
    lines = lambda pattern: [n for n, line in enumerate(code) if re.search(pattern, line)]
    scalars = lines(r"tt\.load .*: !tt\.ptr<")  # the target, its logit
    sums, waits = lines(r'"tt\.reduce"'), lines(r"\bbarrier\b")
    stores = lines(r"tt\.store .*: tensor<")
    assert len(scalars) == 2 and len(sums) == 2 and len(waits) == 1 and stores
    assert scalars[-1] < sums[0] and sums[-1] < waits[0] < stores[0]


def test_every_kernel_is_compiled():
    found = set()
    for file in (runs.ROOT / "lib/paperwalk/kernels").glob("*/triton_impl.py"):
        module = importlib.import_module(f"paperwalk.kernels.{file.parent.name}.triton_impl")
        jitted = {name: each for name, each in vars(module).items() if isinstance(each, triton.JITFunction)}
        launched = [name for name in jitted if f"{name}[" in file.read_text("utf8")]  # the others are called by these
        found |= {jitted[name] for name in launched}
    assert {launch.kernel for launch in LAUNCHES} == found


def test_a_tile_too_large_is_reported():
    """The gradient of heads of width 256, of whose keys and values six tiles would be under way."""
    (launch,) = kernels.fam_backward(16, 256, 256)
    compiled = kernels.build(replace(launch, options=launch.options | dict(num_stages=6)), 90)
    assert compiled.shared > kernels.SHARED[90]
    assert compiled.spills > 0 and compiled.stack > 0


@pytest.mark.parametrize("f, d, dtype", [(f, d, torch.float32) for f, d in [(1, 2), (16, 64), (63, 128), (1024, 64)]])
def test_fam_gets_the_kernels(f, d, dtype):
    form = torch_impl._attention(SimpleNamespace(is_cuda=True, dtype=dtype), f, d)
    assert form == (fam.attend, fam.attend_backward)


@pytest.mark.parametrize(
    "f, d, dtype",
    [
        (16, 130, torch.float32),
        (64, 66, torch.float32),
        (100, 128, torch.float32),
        (256, 256, torch.float32),
        (4, 16, torch.float64),
        (4, 16, torch.bfloat16),
    ],
)
def test_fam_whose_plain_form_is_faster_or_of_another_dtype_gets_it(f, d, dtype):
    form = torch_impl._attention(SimpleNamespace(is_cuda=True, dtype=dtype), f, d)
    assert form == (torch_impl.attend, torch_impl.attend_backward)


def test_committed_table_is_what_the_compiler_gives():
    table = kernels.committed()
    if not table.startswith(f"Triton {triton.__version__};"):
        pytest.skip(f"the table is of another Triton than {triton.__version__}")
    assert table == kernels.table(), "python -m benchmarks.kernels writes it anew"
