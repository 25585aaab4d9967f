"""The head and the loss in one, a target in four dropped, against all logits: forward and backward."""

import torch
from torch.nn import functional

from benchmarks.harness import Contest, Unequal, installed, peak_memory, run
from paperwalk.kernels.linear_cross_entropy import linear_cross_entropy
from paperwalk.kernels.linear_cross_entropy.torch_impl import CHUNK

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZES = {"cpu": [(8192, 256, 16384)], "cuda": [(8192, 4096, 131072), (32768, 4096, 131072)]}
K = 4


def inputs(rows, d_model, vocab_size):
    """Hidden states, weight and targets of a random model, and a mask that drops one target in K."""
    here = dict(generator=torch.Generator(DEVICE).manual_seed(0), device=DEVICE)
    dtype = torch.float32 if DEVICE == "cpu" else torch.bfloat16
    hidden = torch.randn(rows, d_model, **here).to(dtype).requires_grad_()
    weight = (torch.randn(vocab_size, d_model, **here) / d_model**0.5).to(dtype).requires_grad_()
    targets = torch.randint(vocab_size, (rows,), **here)
    keep = torch.rand(rows, **here) >= 1 / K
    return hidden, weight, targets, keep


def with_gradients(loss):
    """loss(hidden, weight, targets, keep) -> (its value, the gradients of hidden and weight)."""

    def both(hidden, weight, targets, keep):
        value = loss(hidden, weight, targets, keep)
        return value.detach(), *torch.autograd.grad(value, (hidden, weight))

    return both


def ignored(targets, keep):
    return targets.masked_fill(~keep, -100)


def full_logits(hidden, weight, targets, keep):
    logits = (hidden @ weight.T).float()
    return functional.cross_entropy(logits, ignored(targets, keep), reduction="sum")


def products(hidden, weight, targets, keep):
    """The three matrix products that the kept rows need, and nothing else; a chunk of rows at a time."""
    with torch.no_grad():
        rows, step = hidden[keep], max(1, CHUNK[DEVICE] // len(weight))
        total = torch.zeros_like(weight)
        for part in rows.split(step):
            logits = part @ weight.T
            logits @ weight
            total.addmm_(logits.T, part)
    return total


def peers():
    found = {"paperwalk": with_gradients(linear_cross_entropy), "torch, all logits": with_gradients(full_logits)}
    found["floor: the products of the kept rows"] = products
    found["torch.compile, all logits"] = with_gradients(torch.compile(full_logits))
    if DEVICE == "cuda" and installed("liger-kernel"):
        from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

        found["liger-kernel"] = with_gradients(
            lambda h, w, t, keep: liger_fused_linear_cross_entropy(h, w, ignored(t, keep), reduction="sum")
        )
    if DEVICE == "cuda" and installed("cut-cross-entropy"):
        from cut_cross_entropy import linear_cross_entropy as cut

        found["cut-cross-entropy"] = with_gradients(lambda h, w, t, keep: cut(h, w, ignored(t, keep), reduction="sum"))
    return found


def check(name, result, reference):
    for part, ours, theirs in zip(("loss", "gradient of hidden", "gradient of weight"), reference, result):
        scale = ours.float().abs().max()
        if not torch.allclose(ours.float(), theirs.float(), atol=float(scale) * (1e-4 if DEVICE == "cpu" else 3e-2)):
            raise Unequal(f"loss: {name}: its {part} is not ours")


CONTESTS = [
    Contest("loss", f"{rows} rows, D {d}, V {v}, k {K}", lambda size=(rows, d, v): inputs(*size), peers(), check)
    for rows, d, v in SIZES[DEVICE]
]

if __name__ == "__main__":
    for contest in CONTESTS:
        run(contest, peak_memory("loss"))
