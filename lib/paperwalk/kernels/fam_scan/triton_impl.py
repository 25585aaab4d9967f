"""A block's attention of the FAM on a GPU: rotation, scores, softmax and sums in one launch, and so their gradients; a
program takes one head of one row. The matrix products around it stay with the vendor's library."""

import torch
import triton
import triton.language as tl
from torch import Tensor

KEYS = 64  # keys that a program reads at a time
MOST_F, MOST_D = 16, 64  # sides of the largest tile that registers hold


@triton.jit
def _attend(
    heads, cos, sin, keys, values, q, p, y, H, f, S, d, scale,
    F: tl.constexpr, D: tl.constexpr, HALF: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)  # b H + h
    b, h = program // H, program % H
    row, col, half = tl.arange(0, F)[:, None], tl.arange(0, D)[None, :], tl.arange(0, HALF)[None, :]
    in_half, in_row = (row < f) & (half < d // 2), (row < f) & (col < d)
    heads += b * f * 3 * H * d + h * d + row * 3 * H * d
    q += program * f * d
    keys += program * S * d
    values += program * S * d
    p += program * f * S

    cos_1 = tl.load(cos + row * d + half, mask=in_half, other=0.0)
    cos_2 = tl.load(cos + row * d + half + d // 2, mask=in_half, other=0.0)
    sin_1 = tl.load(sin + row * d + half, mask=in_half, other=0.0)
    sin_2 = tl.load(sin + row * d + half + d // 2, mask=in_half, other=0.0)
    x_1 = tl.load(heads + half, mask=in_half, other=0.0)
    x_2 = tl.load(heads + half + d // 2, mask=in_half, other=0.0)
    q_1, q_2 = (x_1 * cos_1 + x_2 * sin_1) * scale, (x_2 * cos_2 + x_1 * sin_2) * scale
    tl.store(q + row * d + half, q_1, mask=in_half)
    tl.store(q + row * d + half + d // 2, q_2, mask=in_half)
    x_1 = tl.load(heads + H * d + half, mask=in_half, other=0.0)
    x_2 = tl.load(heads + H * d + half + d // 2, mask=in_half, other=0.0)
    tl.store(keys + row * d + half, x_1 * cos_1 + x_2 * sin_1, mask=in_half)
    tl.store(keys + row * d + half + d // 2, x_2 * cos_2 + x_1 * sin_2, mask=in_half)
    tl.store(values + row * d + col, tl.load(heads + 2 * H * d + col, mask=in_row, other=0.0), mask=in_row)
    tl.debug_barrier()  # what one thread wrote another reads

    largest = tl.full((F, 1), float("-inf"), q_1.dtype)
    total = tl.zeros((F, 1), q_1.dtype)
    key = tl.arange(0, KEYS)
    for start in range(0, S, KEYS):
        at = start + key
        k_half = (at[None, :] < S) & (tl.arange(0, HALF)[:, None] < d // 2)
        place = at[None, :] * d + tl.arange(0, HALF)[:, None]  # (HALF, KEYS), transposed
        k_1 = tl.load(keys + place, mask=k_half, other=0.0)
        k_2 = tl.load(keys + place + d // 2, mask=k_half, other=0.0)
        scores = tl.dot(q_1, k_1, input_precision="ieee") + tl.dot(q_2, k_2, input_precision="ieee")
        scores = tl.where(at[None, :] < S, scores, float("-inf"))
        tl.store(p + row * S + at[None, :], scores, mask=(row < f) & (at[None, :] < S))
        larger = tl.maximum(largest, tl.max(scores, 1)[:, None])
        total = total * tl.exp(largest - larger) + tl.sum(tl.exp(scores - larger), 1)[:, None]
        largest = larger
    tl.debug_barrier()

    read = tl.zeros((F, D), q_1.dtype)
    for start in range(0, S, KEYS):
        at = start + key
        inside = (row < f) & (at[None, :] < S)
        scores = tl.load(p + row * S + at[None, :], mask=inside, other=float("-inf"))
        weight = tl.where(inside, tl.exp(scores - largest) / total, 0.0)
        tl.store(p + row * S + at[None, :], weight, mask=inside)
        v = tl.load(values + at[:, None] * d + col, mask=(at[:, None] < S) & (col < d), other=0.0)
        read += tl.dot(weight, v, input_precision="ieee")
    tl.store(y + (b * f + row) * H * d + h * d + col, read, mask=in_row)


@triton.jit
def _attend_backward(
    grad_y, y, p, q, keys, values, grad_keys, grad_values, cos, sin, grad_heads, grad_scores, H, f, S, d, scale,
    F: tl.constexpr, D: tl.constexpr, HALF: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    b, h = program // H, program % H
    row, col, half = tl.arange(0, F)[:, None], tl.arange(0, D)[None, :], tl.arange(0, HALF)[None, :]
    in_half, in_row = (row < f) & (half < d // 2), (row < f) & (col < d)
    merged = (b * f + row) * H * d + h * d + col
    p += program * f * S
    q += program * f * d
    keys += program * S * d
    values += program * S * d
    grad_keys += program * S * d
    grad_values += program * S * d
    grad_scores += program * f * S
    grad_heads += b * f * 3 * H * d + h * d + row * 3 * H * d

    grad_read = tl.load(grad_y + merged, mask=in_row, other=0.0)
    mean = tl.sum(grad_read * tl.load(y + merged, mask=in_row, other=0.0), 1)[:, None]  # of the gradients at p, under p
    grad_q_1 = tl.zeros((F, HALF), grad_read.dtype)
    grad_q_2 = tl.zeros((F, HALF), grad_read.dtype)
    key = tl.arange(0, KEYS)
    for start in range(0, S, KEYS):
        at = start + key
        inside = (row < f) & (at[None, :] < S)
        v = tl.load(
            values + at[None, :] * d + tl.arange(0, D)[:, None],
            mask=(at[None, :] < S) & (tl.arange(0, D)[:, None] < d),
            other=0.0,
        )  # (D, KEYS), transposed
        weight = tl.load(p + row * S + at[None, :], mask=inside, other=0.0)
        slope = weight * (tl.dot(grad_read, v, input_precision="ieee") - mean)
        tl.store(grad_scores + row * S + at[None, :], slope, mask=inside)
        k_half = (at[:, None] < S) & (half < d // 2)
        k_1 = tl.load(keys + at[:, None] * d + half, mask=k_half, other=0.0)
        k_2 = tl.load(keys + at[:, None] * d + half + d // 2, mask=k_half, other=0.0)
        grad_q_1 += tl.dot(slope, k_1, input_precision="ieee")
        grad_q_2 += tl.dot(slope, k_2, input_precision="ieee")
    tl.debug_barrier()

    own = tl.arange(0, F)[None, :]  # a query, where row is a key: of the FAM's own F
    square = (own < f) & (row < f)
    slope = tl.load(grad_scores + own * S + row, mask=square, other=0.0)  # (keys, queries)
    weight = tl.load(p + own * S + row, mask=square, other=0.0)
    q_1 = tl.load(q + row * d + half, mask=in_half, other=0.0)
    q_2 = tl.load(q + row * d + half + d // 2, mask=in_half, other=0.0)
    grad_k_1 = tl.load(grad_keys + row * d + half, mask=in_half, other=0.0)
    grad_k_2 = tl.load(grad_keys + row * d + half + d // 2, mask=in_half, other=0.0)
    grad_k_1 += tl.dot(slope, q_1, input_precision="ieee")
    grad_k_2 += tl.dot(slope, q_2, input_precision="ieee")
    grad_v = tl.load(grad_values + row * d + col, mask=in_row, other=0.0)
    grad_v += tl.dot(weight, grad_read, input_precision="ieee")

    cos_1 = tl.load(cos + row * d + half, mask=in_half, other=0.0)
    cos_2 = tl.load(cos + row * d + half + d // 2, mask=in_half, other=0.0)
    sin_1 = tl.load(sin + row * d + half, mask=in_half, other=0.0)
    sin_2 = tl.load(sin + row * d + half + d // 2, mask=in_half, other=0.0)
    grad_q_1, grad_q_2 = grad_q_1 * scale, grad_q_2 * scale
    tl.store(grad_heads + half, grad_q_1 * cos_1 + grad_q_2 * sin_2, mask=in_half)
    tl.store(grad_heads + half + d // 2, grad_q_2 * cos_2 + grad_q_1 * sin_1, mask=in_half)
    tl.store(grad_heads + H * d + half, grad_k_1 * cos_1 + grad_k_2 * sin_2, mask=in_half)
    tl.store(grad_heads + H * d + half + d // 2, grad_k_2 * cos_2 + grad_k_1 * sin_1, mask=in_half)
    tl.store(grad_heads + 2 * H * d + col, grad_v, mask=in_row)


def fits(f: int, d: int, dtype: torch.dtype) -> bool:
    """Whether the kernels are for a FAM of f vectors with heads of width d.

    A program holds all f in one tile. Compiled for sm_80 and sm_90, tiles up to 16 x 64 stay in registers; 16 x 128 and
    32 x 16 spill, and 256 x 64 asks for more shared memory than an SM has (benchmarks/kernels.py).
    """
    return dtype == torch.float32 and f <= MOST_F and d <= MOST_D


def attend(heads: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `torch_impl.attend`."""
    B, f, _, H, d = heads.shape
    S = keys.shape[2]
    q, p, y = heads.new_empty(B * H, f, d), heads.new_empty(B * H, f, S), heads.new_empty(B * f, H * d)
    heads, cos, sin = heads.contiguous(), cos.contiguous(), sin.contiguous()
    _attend[(B * H,)](heads, cos, sin, keys, values, q, p, y, H, f, S, d, d**-0.5, **_blocks(f, d))
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
    _attend_backward[(B * H,)](*read, grad_heads, grad_scores, H, f, S, d, d**-0.5, **_blocks(f, d))
    return grad_heads.view(B * f, 3 * H * d), grad_scores


def _blocks(f, d):
    """Sides of the tiles: powers of two, and at least 16, as matrix units want them."""
    side = lambda n: max(16, triton.next_power_of_2(n))
    return dict(F=side(f), D=side(d), HALF=side(d // 2), KEYS=KEYS)
