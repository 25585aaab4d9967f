"""A block's attention of the FAM on a GPU: rotation, scores, softmax and sums in one launch, and so their gradients; a
program takes a tile of the FAM's vectors in one head of one row. The matrix products around it stay with the vendor's
library. Products run on tensor cores as three in TF32, which together come near float32."""

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST_D = 128  # the widest head whose tiles registers hold
TALL, TALL_MOST_D = 64, 64  # rows of a tall tile, and the widest head for it
MANY = 128  # programs that fill a GPU: an A100 has 108 SMs, an H100 132


@triton.jit
def _dot(a, b, sum):
    return tl.dot(a, b, sum, input_precision="tf32x3", out_dtype=sum.dtype)


@triton.jit
def _rotated(x, cos, sin, at, half, stride, f, d):
    """Both halves of vectors `at` of x, rotated. Tiles may lie either way: at and half say how."""
    inside = (at < f) & (half < d // 2)
    x += at * stride + half
    cos += at * d + half
    sin += at * d + half
    x_1 = tl.load(x, mask=inside, other=0.0)
    x_2 = tl.load(x + d // 2, mask=inside, other=0.0)
    cos_1, cos_2 = tl.load(cos, mask=inside, other=0.0), tl.load(cos + d // 2, mask=inside, other=0.0)
    sin_1, sin_2 = tl.load(sin, mask=inside, other=0.0), tl.load(sin + d // 2, mask=inside, other=0.0)
    return x_1 * cos_1 + x_2 * sin_1, x_2 * cos_2 + x_1 * sin_2


@triton.jit
def _store_rotated_back(x, x_1, x_2, cos, sin, at, half, stride, f, d):
    """The gradient before `_rotated`, from that after it."""
    inside = (at < f) & (half < d // 2)
    x += at * stride + half
    cos += at * d + half
    sin += at * d + half
    cos_1, cos_2 = tl.load(cos, mask=inside, other=0.0), tl.load(cos + d // 2, mask=inside, other=0.0)
    sin_1, sin_2 = tl.load(sin, mask=inside, other=0.0), tl.load(sin + d // 2, mask=inside, other=0.0)
    tl.store(x, x_1 * cos_1 + x_2 * sin_2, mask=inside)
    tl.store(x + d // 2, x_2 * cos_2 + x_1 * sin_1, mask=inside)


@triton.jit
def _score(q_1, q_2, k_1, k_2, p, row, at, f, end, S, largest, total):
    """Scores of keys `at`, up to end, stored in p; the rows' largest so far, and the sum of exponents below it."""
    scores = _dot(q_2, k_2, _dot(q_1, k_1, tl.zeros((q_1.shape[0], k_1.shape[1]), q_1.dtype)))
    scores = tl.where(at < end, scores, float("-inf"))
    tl.store(p + row * S + at, scores, mask=(row < f) & (at < end))
    larger = tl.maximum(largest, tl.max(scores, 1)[:, None])
    return larger, total * tl.exp(largest - larger) + tl.sum(tl.exp(scores - larger), 1)[:, None]


@triton.jit
def _attend(
    heads, cos, sin, keys, values, q, p, y, H, f, S, d, scale,
    TILE: tl.constexpr, D: tl.constexpr, HALF: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)  # b H + h
    b, h = program // H, program % H
    row = tl.program_id(1) * TILE + tl.arange(0, TILE)[:, None]
    col, half, half_T = tl.arange(0, D)[None, :], tl.arange(0, HALF)[None, :], tl.arange(0, HALF)[:, None]
    in_half, in_row = (row < f) & (half < d // 2), (row < f) & (col < d)
    stride = 3 * H * d
    heads += b * f * stride + h * d
    own_values = heads + 2 * H * d
    q += program * f * d
    keys += program * S * d
    values += program * S * d
    p += program * f * S

    own_1, own_2 = _rotated(heads + H * d, cos, sin, row, half, stride, f, d)
    tl.store(keys + row * d + half, own_1, mask=in_half)
    tl.store(keys + row * d + half + d // 2, own_2, mask=in_half)
    own = tl.load(own_values + row * stride + col, mask=in_row, other=0.0)
    tl.store(values + row * d + col, own, mask=in_row)
    q_1, q_2 = _rotated(heads, cos, sin, row, half, stride, f, d)
    q_1, q_2 = q_1 * scale, q_2 * scale
    tl.store(q + row * d + half, q_1, mask=in_half)
    tl.store(q + row * d + half + d // 2, q_2, mask=in_half)

    # Other programs write the FAM's keys and values while this one runs, so that it makes its own copy of them.
    largest = tl.full((TILE, 1), float("-inf"), q_1.dtype)
    total = tl.zeros((TILE, 1), q_1.dtype)
    key = tl.arange(0, KEYS)
    for start in range(0, f, KEYS):
        at = start + key[None, :]
        k_1, k_2 = _rotated(heads + H * d, cos, sin, at, half_T, stride, f, d)  # (HALF, KEYS), transposed
        largest, total = _score(q_1, q_2, k_1, k_2, p, row, at, f, f, S, largest, total)
    for start in range(f, S, KEYS):
        at = start + key[None, :]
        inside = (at < S) & (half_T < d // 2)
        k_1 = tl.load(keys + at * d + half_T, mask=inside, other=0.0)
        k_2 = tl.load(keys + at * d + half_T + d // 2, mask=inside, other=0.0)
        largest, total = _score(q_1, q_2, k_1, k_2, p, row, at, f, S, S, largest, total)
    tl.debug_barrier()  # what one thread wrote another reads

    read = tl.zeros((TILE, D), q_1.dtype)
    for start in range(0, S, KEYS):
        at, at_T = start + key[None, :], start + key[:, None]
        inside = (row < f) & (at < S)
        scores = tl.load(p + row * S + at, mask=inside, other=float("-inf"))
        weight = tl.exp(scores - largest) / total
        tl.store(p + row * S + at, weight, mask=inside)
        v = tl.where(at_T < f, own_values + at_T * stride, values + at_T * d)
        v = tl.load(v + col, mask=(at_T < S) & (col < d), other=0.0)
        read = _dot(weight, v, read)
    tl.store(y + (b * f + row) * H * d + h * d + col, read, mask=in_row)


@triton.jit
def _attend_backward(
    grad_y, y, p, q, keys, values, grad_keys, grad_values, cos, sin, grad_heads, grad_scores, H, f, S, d, scale,
    TILE: tl.constexpr, D: tl.constexpr, HALF: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    b, h = program // H, program % H
    tiles = tl.num_programs(1) // 3  # so many programs for the queries, then for the FAM's own keys, then its values
    row = tl.program_id(1) % tiles * TILE + tl.arange(0, TILE)[:, None]
    col, col_T, half = tl.arange(0, D)[None, :], tl.arange(0, D)[:, None], tl.arange(0, HALF)[None, :]
    in_half, in_row = (row < f) & (half < d // 2), (row < f) & (col < d)
    key = tl.arange(0, KEYS)
    stride = 3 * H * d
    grad_y += b * f * H * d + h * d
    y += b * f * H * d + h * d
    p += program * f * S
    q += program * f * d
    keys += program * S * d
    values += program * S * d
    grad_keys += program * S * d
    grad_values += program * S * d
    grad_scores += program * f * S
    grad_heads += b * f * stride + h * d

    if tl.program_id(1) < tiles:
        grad_read = tl.load(grad_y + row * H * d + col, mask=in_row, other=0.0)
        mean = tl.sum(grad_read * tl.load(y + row * H * d + col, mask=in_row, other=0.0), 1)[:, None]
        grad_q_1 = tl.zeros((TILE, HALF), grad_read.dtype)
        grad_q_2 = tl.zeros((TILE, HALF), grad_read.dtype)
        for start in range(0, S, KEYS):
            at, at_T = start + key[None, :], start + key[:, None]
            inside = (row < f) & (at < S)
            v = tl.load(values + at * d + col_T, mask=(at < S) & (col_T < d), other=0.0)  # (D, KEYS), transposed
            weight = tl.load(p + row * S + at, mask=inside, other=0.0)
            slope = weight * (_dot(grad_read, v, tl.zeros((TILE, KEYS), grad_read.dtype)) - mean)
            tl.store(grad_scores + row * S + at, slope, mask=inside)
            k_half = (at_T < S) & (half < d // 2)
            k_1 = tl.load(keys + at_T * d + half, mask=k_half, other=0.0)
            k_2 = tl.load(keys + at_T * d + half + d // 2, mask=k_half, other=0.0)
            grad_q_1 = _dot(slope, k_1, grad_q_1)
            grad_q_2 = _dot(slope, k_2, grad_q_2)
        _store_rotated_back(grad_heads, grad_q_1 * scale, grad_q_2 * scale, cos, sin, row, half, stride, f, d)
    elif tl.program_id(1) < 2 * tiles:  # Here a row is a key; the slopes that queries have at it are made anew.
        own = tl.load(values + row * d + col, mask=in_row, other=0.0)
        grad_k_1 = tl.zeros((TILE, HALF), own.dtype)
        grad_k_2 = tl.zeros((TILE, HALF), own.dtype)
        for start in range(0, f, KEYS):
            at, at_T = start + key[None, :], start + key[:, None]
            inside = (at < f) & (col_T < d)
            upstream = tl.load(grad_y + at * H * d + col_T, mask=inside, other=0.0)  # (D, KEYS), transposed
            means = tl.sum(upstream * tl.load(y + at * H * d + col_T, mask=inside, other=0.0), 0)[None, :]
            weight = tl.load(p + at * S + row, mask=(row < f) & (at < f), other=0.0)
            slope = weight * (_dot(own, upstream, tl.zeros((TILE, KEYS), own.dtype)) - means)
            q_half = (at_T < f) & (half < d // 2)
            q_1 = tl.load(q + at_T * d + half, mask=q_half, other=0.0)
            q_2 = tl.load(q + at_T * d + half + d // 2, mask=q_half, other=0.0)
            grad_k_1 = _dot(slope, q_1, grad_k_1)
            grad_k_2 = _dot(slope, q_2, grad_k_2)
        grad_k_1 += tl.load(grad_keys + row * d + half, mask=in_half, other=0.0)
        grad_k_2 += tl.load(grad_keys + row * d + half + d // 2, mask=in_half, other=0.0)
        _store_rotated_back(grad_heads + H * d, grad_k_1, grad_k_2, cos, sin, row, half, stride, f, d)
    else:
        grad_v = tl.load(grad_values + row * d + col, mask=in_row, other=0.0)
        for start in range(0, f, KEYS):
            at, at_T = start + key[None, :], start + key[:, None]
            weight = tl.load(p + at * S + row, mask=(row < f) & (at < f), other=0.0)
            upstream = tl.load(grad_y + at_T * H * d + col, mask=(at_T < f) & (col < d), other=0.0)
            grad_v = _dot(weight, upstream, grad_v)
        tl.store(grad_heads + 2 * H * d + row * stride + col, grad_v, mask=in_row)


def fits(f: int, d: int, dtype: torch.dtype) -> bool:
    """Whether the kernels are to be used for a FAM of f vectors with heads of width d.

    Compiled for sm_80 and sm_90, tiles of heads up to 128 wide stay in registers (benchmarks/kernels.py). On an H200
    the plain batched products take longer up to a width of 64 and, with few vectors, up to 128; of 64 and more vectors
    with wider heads they are faster, for every tile reads all keys anew (benchmarks/fam.py).
    """
    return dtype == torch.float32 and (d <= TALL_MOST_D or (d <= MOST_D and f < TALL))


def attend(heads: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `torch_impl.attend`."""
    B, f, _, H, d = heads.shape
    S = keys.shape[2]
    q, p, y = heads.new_empty(B * H, f, d), heads.new_empty(B * H, f, S), heads.new_empty(B * f, H * d)
    heads, cos, sin = heads.contiguous(), cos.contiguous(), sin.contiguous()
    chosen = _blocks(f, d, B * H, tall_keys=32)
    grid = B * H, triton.cdiv(f, chosen["TILE"])
    _attend[grid](heads, cos, sin, keys, values, q, p, y, H, f, S, d, d**-0.5, **chosen)
    return q, p, y


def attend_backward(
    grad_y: Tensor,
    y: Tensor,
    p: Tensor,
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    grad_keys: Tensor,
    grad_values: Tensor,
    cos: Tensor,
    sin: Tensor,
) -> tuple[Tensor, Tensor]:
    """As `torch_impl.attend_backward`."""
    B, H, S, d = keys.shape
    f = q.shape[1]
    grad_heads, grad_scores = grad_y.new_empty(B, f, 3, H, d), grad_y.new_empty(p.shape)
    read = (x.contiguous() for x in (grad_y, y, p, q, keys, values, grad_keys, grad_values, cos, sin))
    chosen = _blocks(f, d, B * H, tall_keys=16)
    grid = B * H, 3 * triton.cdiv(f, chosen["TILE"])
    _attend_backward[grid](*read, grad_heads, grad_scores, H, f, S, d, d**-0.5, **chosen)
    return grad_heads.view(B * f, 3 * H * d), grad_scores


def _blocks(f, d, heads, tall_keys):
    """Sides of the tiles, and options, for f vectors in so many heads of all rows: what compiles without spills.

    Sides are powers of two, and at least 16, as matrix units want them. Four warps share a tile of 16 rows by its
    columns, one of 64 by its rows; at 32 rows Triton has half of the warps do the same as the others. A tall tile reads
    the keys less often, but leaves fewer programs. Without maxnreg ptxas spills for the sake of one more block an SM.
    """
    side = lambda n: max(16, triton.next_power_of_2(n))
    tall = f >= TALL and d <= TALL_MOST_D and heads * triton.cdiv(f, TALL) >= MANY
    tile, keys = (TALL, tall_keys) if tall else (16, 32)
    return dict(TILE=tile, D=side(d), HALF=side(d // 2), KEYS=keys, num_warps=4, num_stages=2, maxnreg=255)
