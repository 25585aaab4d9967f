"""The scan with its gradient written out: few operations a block, and the gradient of each weight as one matrix
product over all blocks. The scales of the norms are folded into the matrices that follow them."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


class FAMScan(torch.autograd.Function):
    """Arguments and results as in `fam_scan`, without the ablations. R = B F rows; S = F + b keys."""

    @staticmethod
    def forward(
        ctx: Any,
        fam: Tensor,
        own_k: Tensor,
        own_v: Tensor,
        cos: Tensor,
        sin: Tensor,
        eps: float,
        fresh: bool,
        wants_grad: bool,
        attention_norm: Tensor,
        qkv: Tensor,
        out: Tensor,
        feed_forward_norm: Tensor,
        gate_up: Tensor,
        down: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        N, B, H, b, d = own_k.shape
        f, D = fam.shape[1:]
        to_qkv, to_gate_up = qkv * attention_norm, gate_up * feed_forward_norm
        keys, values = own_k.new_empty(N, B, H, f + b, d), own_v.new_empty(N, B, H, f + b, d)
        keys[:, :, :, f:], values[:, :, :, f:] = own_k, own_v
        (read, _), fam, saved = _attention(fam, f, d), fam.reshape(B * f, D), []
        for n in range(N):
            x, x_scale = _normalise(fam, eps)
            q, p, y = read((x @ to_qkv.T).view(B, f, 3, H, d), cos[n], sin[n], keys[n], values[n])
            a = y @ out.T if fresh and n == 0 else torch.addmm(fam, y, out.T)
            z, z_scale = _normalise(a, eps)
            gate_and_up = z @ to_gate_up.T
            gate, up = gate_and_up.chunk(2, -1)
            fam = torch.addmm(a, F.silu(gate) * up, down.T)
            if wants_grad:
                saved.append((x, x_scale, q, p, y, z, z_scale, gate_and_up))
        if wants_grad:
            kept = (torch.stack(each) for each in zip(*saved))
            known = keys, values, cos, sin, attention_norm, qkv, out, feed_forward_norm, gate_up, down
            ctx.save_for_backward(*known, *kept)
        ctx.fresh = fresh
        return fam.view(B, f, D), keys, values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_fam: Tensor, grad_keys: Tensor, grad_values: Tensor) -> tuple[Tensor | None, ...]:
        keys, values, cos, sin, attention_norm, qkv, out, feed_forward_norm, gate_up, down, *saved = ctx.saved_tensors
        x, x_scale, q, p, y, z, z_scale, gate_and_up = saved
        N, B, H, S, d = keys.shape
        f, D = grad_fam.shape[1:]
        to_qkv, to_gate_up = qkv * attention_norm, gate_up * feed_forward_norm
        gate, up = gate_and_up.chunk(2, -1)  # (N, R, d_ff)
        silu, slope = F.silu(gate), torch.sigmoid(gate)
        slope = torch.cat((up * slope * (1 + gate * (1 - slope)), silu), -1)  # of silu(gate) up, (N, R, 2 d_ff)
        (_, read_backward), grad_fam, grads = _attention(grad_fam, f, d), grad_fam.reshape(B * f, D), []
        for n in reversed(range(N)):
            grad_hidden = grad_fam @ down
            grad_gate_and_up = torch.cat((grad_hidden, grad_hidden), -1) * slope[n]
            grad_a = grad_fam + _normalise_backward(grad_gate_and_up @ to_gate_up, z[n], z_scale[n])
            grad_y = grad_a @ out
            read = (y[n], p[n], q[n], keys[n], values[n], grad_keys[n], grad_values[n], cos[n], sin[n])
            grad_heads, grad_scores = read_backward(grad_y, *read)
            grads.append((grad_heads, grad_a, grad_gate_and_up, grad_fam, grad_scores, _split(grad_y, B, H)))
            grad_fam = _normalise_backward(grad_heads @ to_qkv, x[n], x_scale[n])
            if not (ctx.fresh and n == 0):
                grad_fam = grad_fam + grad_a
        grad_heads, grad_a, grad_gate_and_up, grad_after, grad_scores, grad_y = (
            torch.cat(each[::-1]) for each in zip(*grads)
        )  # (N R, ...), the last two (N B H, F, ...)
        grad_k = torch.bmm(grad_scores[:, :, f:].mT, q.flatten(0, 1)).view(N, B, H, S - f, d)
        grad_v = torch.bmm(p.flatten(0, 1)[:, :, f:].mT, grad_y).view(N, B, H, S - f, d)
        grad_to_qkv, grad_to_gate_up = grad_heads.T @ x.flatten(0, 1), grad_gate_and_up.T @ z.flatten(0, 1)
        return (
            grad_fam.view(B, f, D),
            grad_k + grad_keys[:, :, :, f:],
            grad_v + grad_values[:, :, :, f:],
            *(None,) * 5,
            (grad_to_qkv * qkv).sum(0),
            grad_to_qkv * attention_norm,
            grad_a.T @ y.flatten(0, 1),
            (grad_to_gate_up * gate_up).sum(0),
            grad_to_gate_up * feed_forward_norm,
            grad_after.T @ (silu * up).flatten(0, 1),
        )


def _attention(fam, f, d):
    """The forms of `attend` and `attend_backward` for the device and dtype of fam, f vectors with heads of width d."""
    if fam.is_cuda:
        from paperwalk.kernels.fam_scan import triton_impl

        if triton_impl.fits(f, d, fam.dtype):
            return triton_impl.attend, triton_impl.attend_backward
    return attend, attend_backward


def attend(heads: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The FAM reads itself and a block: heads (B, F, 3, H, d), its queries, keys and values before rotation; cos and
    sin (F, 1, d); keys and values (B, H, S, d), whose first F places are filled here.

    Returns the rotated queries, scaled, (B H, F, d), the attention weights (B H, F, S), and what was read (B F, H d).
    """
    B, f, _, H, d = heads.shape
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)  # (F, 1, 1, d)
    qk = heads[:, :, :2]
    qk = torch.addcmul(qk * cos, qk.roll(d // 2, -1), sin)
    q = (qk[:, :, 0] * d**-0.5).transpose(1, 2).reshape(B * H, f, d)
    keys[:, :, :f], values[:, :, :f] = qk[:, :, 1].transpose(1, 2), heads[:, :, 2].transpose(1, 2)
    p = torch.bmm(q, keys.flatten(0, 1).mT).softmax(-1)
    y = torch.bmm(p, values.flatten(0, 1)).unflatten(0, (B, H)).transpose(1, 2).flatten(2).flatten(0, 1)
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
    """Gradients of `attend`, whose results y, p and q are; grad_keys and grad_values (B, H, S, d) come from later
    readers of the keys and values. Returns the gradient of heads (B F, 3 H d), and of the scores (B H, F, S)."""
    B, H, _, d = keys.shape
    f = q.shape[1]
    cos, sin, grad_y = cos.unsqueeze(1), sin.unsqueeze(1), _split(grad_y, B, H)
    weighted = torch.bmm(grad_y, values.flatten(0, 1).mT) * p
    grad_scores = torch.addcmul(weighted, p, weighted.sum(-1, keepdim=True), value=-1)
    grad_q = torch.bmm(grad_scores, keys.flatten(0, 1)) * d**-0.5
    grad_k = torch.baddbmm(grad_keys.flatten(0, 1)[:, :f], grad_scores[:, :, :f].mT, q)
    grad_v = torch.baddbmm(grad_values.flatten(0, 1)[:, :f], p[:, :, :f].mT, grad_y)
    grad_heads = torch.stack((grad_q, grad_k, grad_v)).view(3, B, H, f, d).permute(1, 3, 0, 2, 4)
    grad_qk, grad_v = grad_heads.split((2, 1), 2)  # (B, F, 2 or 1, H, d)
    grad_qk = torch.addcmul((grad_qk * sin).roll(d // 2, -1), grad_qk, cos)
    return torch.cat((grad_qk, grad_v), 2).view(B * f, 3 * H * d), grad_scores


def _split(y, B, H):
    """(B F, H d) -> (B H, F, d)."""
    return y.view(B, len(y) // B, H, -1).transpose(1, 2).flatten(0, 1)


def _normalise(x, eps):
    """x / rms(x), and 1 / rms(x)."""
    scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return x * scale, scale


def _normalise_backward(grad, x, scale):
    """Gradient at the input of `_normalise`, from the one at its output x."""
    return torch.addcmul(grad, x, (grad * x).mean(-1, keepdim=True), value=-1) * scale
