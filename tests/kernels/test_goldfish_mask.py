"""The fast masks against the naive ones, and the properties that the paper's argument rests on."""

import subprocess
import sys

import pytest
import torch

from paperwalk.kernels.goldfish_mask import COMPILED_FROM, STRATEGIES, goldfish_mask, naive, numba_impl, torch_impl

SHAPES = [(1, 1), (1, 63), (3, 100), (2, 2000)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("k, h", [(2, 1), (3, 4), (4, 13), (128, 50), (4, 2000)])
@pytest.mark.parametrize("strategy", ["hash", "static", "released-hash"])
def test_equals_naive(shape, k, h, strategy):
    if strategy == "released-hash" and shape[1] == 2000 and h == 2000:
        shape = (1, 2000)
    ids = torch.randint(0, 50_000, shape)
    ids[:, ::7] = 0
    reference = {"hash": naive.hash_mask, "static": naive.static_mask, "released-hash": naive.released_mask}
    expected = torch.tensor([reference[strategy](row, k, h) for row in ids.tolist()])
    assert torch.equal(goldfish_mask(ids, k, h, strategy), expected)


@pytest.mark.parametrize(
    "shape",
    [(1, 1), (3, 13), (3, 14), (2, 100), (2, numba_impl.PIECE + 13), (1, 3 * numba_impl.PIECE + 50), (0, 40), (2, 0)],
)
@pytest.mark.parametrize("k, h", [(2, 1), (4, 13), (128, 50)])
def test_compiled_form_gives_the_same_mask_whatever_the_tokens(shape, k, h):
    ids = torch.randint(-(2**62), 2**62, shape, generator=torch.Generator().manual_seed(0))
    ids[..., ::3] %= 50_000
    assert torch.equal(numba_impl.hash_mask(ids, k, h), torch_impl.hash_mask(ids, k, h))


def test_compiled_form_leaves_torch_its_threads():
    """In a process of its own: numba sets OpenMP's number, which is torch's, at its first call."""
    code = (
        "import torch; torch.set_num_threads(1)\n"
        "from paperwalk.kernels.goldfish_mask import numba_impl\n"
        "numba_impl.hash_mask(torch.arange(1000), 4, 13)\n"
        "print(torch.get_num_threads())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["1"], done.stderr


@pytest.mark.parametrize("more", [-1, 0])
def test_both_sides_of_the_size_from_which_the_compiled_form_is_taken(more):
    ids = torch.randint(50_000, (COMPILED_FROM + more,))
    expected = torch.tensor(naive.hash_mask(ids.tolist(), 4, 13))
    assert torch.equal(goldfish_mask(ids, 4, 13), expected)
    assert torch.equal(goldfish_mask(ids.to(torch.int32).reshape(1, 1, -1), 4, 13)[0, 0], expected)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
@pytest.mark.parametrize("strategy", ["hash", "static", "released-hash"])
def test_integer_width_does_not_matter(dtype, strategy):
    ids = torch.randint(0, 128, (2, 300))
    assert torch.equal(goldfish_mask(ids.to(dtype), 4, 5, strategy), goldfish_mask(ids, 4, 5, strategy))


@pytest.mark.parametrize("k", [2, 3, 4, 8, 32, 128])
def test_share_dropped_is_one_in_k(k):
    """Distinct contexts: the count is binomial, so three standard errors bound it."""
    ids = torch.arange(200_000).reshape(1, -1)
    dropped = (~goldfish_mask(ids, k, 13)[:, 13:]).double()
    assert abs(dropped.mean() - 1 / k) < 3 * ((1 / k) * (1 - 1 / k) / dropped.numel()) ** 0.5


def test_equal_windows_are_masked_alike_wherever_they_stand():
    passage = torch.randint(0, 1000, (60,))
    rows = torch.randint(0, 1000, (5, 300))
    offsets = [0, 17, 100, 239, 240]
    for row, offset in zip(rows, offsets):
        row[offset : offset + 60] = passage
    mask = goldfish_mask(rows, 4, 13)
    inner = [mask[i, o + 13 : o + 60] for i, o in enumerate(offsets)]
    assert all(torch.equal(inner[0], other) for other in inner[1:])
    assert 0 < (~inner[0]).sum() < 47


@pytest.mark.parametrize("strategy", ["hash", "static", "released-hash"])
def test_no_dependence_on_the_batch(strategy):
    ids = torch.randint(0, 1000, (9, 211))
    whole = goldfish_mask(ids, 4, 13, strategy)
    for i in range(9):
        assert torch.equal(goldfish_mask(ids[i : i + 1], 4, 13, strategy)[0], whole[i])
        assert torch.equal(goldfish_mask(ids[i], 4, 13, strategy), whole[i])
    assert torch.equal(goldfish_mask(ids.T.contiguous().T, 4, 13, strategy), whole)  # not contiguous


def test_hash_sees_order_and_only_the_context():
    ids = torch.randint(0, 1000, (400, 14))
    last = ids.clone()
    last[:, -1] += 1  # the target itself
    assert torch.equal(goldfish_mask(ids, 2, 13), goldfish_mask(last, 2, 13))
    swapped = ids.clone()
    swapped[:, [3, 4]] = ids[:, [4, 3]]
    changed = (goldfish_mask(ids, 2, 13) != goldfish_mask(swapped, 2, 13))[:, -1].double().mean()
    assert 0.4 < changed < 0.6  # a fair coin when the hash sees order


def test_released_hash_is_blind_to_order_and_broken_by_id_zero():
    ids = torch.randint(1, 1000, (50, 40))
    swapped = ids.clone()
    swapped[:, [30, 31]] = ids[:, [31, 30]]
    same = goldfish_mask(ids, 4, 13, "released-hash") == goldfish_mask(swapped, 4, 13, "released-hash")
    assert same[:, 31:].all()
    ids[:, 20] = 0
    window = goldfish_mask(ids, 4, 13, "released-hash")[:, 20:33]
    assert (window == window[0, 0]).all()  # every window that holds id 0 has the same key


def test_random_differs_between_calls_and_repeats_with_the_seed():
    ids = torch.randint(0, 1000, (4, 500))
    torch.manual_seed(3)
    first, second = goldfish_mask(ids, 4, 13, "random"), goldfish_mask(ids, 4, 13, "random")
    torch.manual_seed(3)
    assert not torch.equal(first, second)
    assert torch.equal(goldfish_mask(ids, 4, 13, "random"), first)
    assert abs((~first).double().mean() - 0.25) < 3 * (0.25 * 0.75 / 2000) ** 0.5


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_empty_and_short_rows(strategy):
    assert goldfish_mask(torch.zeros(0, 5, dtype=torch.long), 4, 3, strategy).shape == (0, 5)
    assert goldfish_mask(torch.zeros(2, 0, dtype=torch.long), 4, 3, strategy).shape == (2, 0)
    assert goldfish_mask(torch.ones(2, 3, dtype=torch.long), 4, 13, "hash").all()


@pytest.mark.gpu
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_cpu_and_gpu_masks_are_identical(strategy):
    ids = torch.randint(0, 50_000, (8, 2048))
    torch.manual_seed(0)
    here = goldfish_mask(ids, 4, 13, strategy)
    torch.manual_seed(0)
    assert torch.equal(goldfish_mask(ids.cuda(), 4, 13, strategy).cpu(), here)


@pytest.mark.parametrize(
    "bad, message",
    [
        (dict(k=0), "k = 0: must be a whole number of at least 2"),
        (dict(k=4.0), "k = 4.0"),
        (dict(h=0), "h = 0"),
        (dict(strategy="hsh"), "strategy = 'hsh': must be one of hash, static, random, released-hash"),
    ],
)
def test_bad_arguments(bad, message):
    with pytest.raises(ValueError, match=message):
        goldfish_mask(torch.zeros(1, 9, dtype=torch.long), **{"k": 4, **bad})


@pytest.mark.parametrize("ids", [torch.zeros(2, 9), torch.zeros(2, 9, dtype=torch.bool), [1, 2, 3]])
def test_ids_must_be_integers(ids):
    with pytest.raises(TypeError, match="must be an integer tensor"):
        goldfish_mask(ids, 4)
