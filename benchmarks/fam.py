"""Attention over blocks and memory segments (BSWA, TransformerFAM without its FAM) on a long text, against the same
layers with a dense mask in SDPA, and with FlexAttention; and what the FAM costs besides. Forward, and with backward."""

import torch
from torch.nn import functional
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from benchmarks.harness import Contest, Unequal, run
from paperwalk.models.fam import FAMConfig, TransformerFAM

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ON_CPU = dict(B=1, T=2048, BLOCK=64, d_model=128, n_layers=2, n_heads=2, d_ff=352)
ON_GPU = dict(B=4, T=8192, BLOCK=256, d_model=512, n_layers=4, n_heads=8, d_ff=1376)  # enough to fill it
CHOSEN = ON_GPU if DEVICE == "cuda" else ON_CPU
B, T, BLOCK, M = CHOSEN["B"], CHOSEN["T"], CHOSEN["BLOCK"], 1
SIZES = dict(vocab_size=256, block_size=BLOCK, memory_segments=M)
SIZES |= {name: CHOSEN[name] for name in ("d_model", "n_layers", "n_heads", "d_ff")}
CASE = f"{T} tokens, block {BLOCK}, M {M}" + (f", batch {B}, D {SIZES['d_model']}" if B > 1 else "")


def model(fam_length):
    torch.manual_seed(0)
    return TransformerFAM(FAMConfig(**SIZES, fam_length=fam_length)).to(DEVICE)


def inputs():
    return (torch.randint(256, (B, T), generator=torch.Generator().manual_seed(0)).to(DEVICE),)


def readable(batch, head, query, key):
    """Whether a token may read another: not a later one, and none before the block's memory segments."""
    return (key <= query) & (key // BLOCK >= query // BLOCK - M)


def logits_with(attend):
    """Logits of BSWA with attend(q, k, v) over all tokens of the text: (B, H, T, head_dim) each."""

    def logits(ids):
        x = bswa.embedding(ids)
        rotary = bswa._rotary(torch.arange(T))
        for block in bswa.blocks:
            q, k, v = block.attention(block.attention_norm(x), rotary)
            x = block.finish(block.attention, attend(q, k, v).transpose(1, 2).flatten(2), x)
        return functional.linear(bswa.norm(x), bswa.embedding.weight)

    return logits


def trained(logits):
    """The gradient of the embedding through logits(ids)."""

    def gradient(ids):
        return torch.autograd.grad(logits(ids).logsumexp(-1).sum(), bswa.embedding.weight)[0]

    return gradient


def only_forward(logits):
    return torch.no_grad()(logits)


def check(name, result, reference):
    if name != "paperwalk, with the FAM" and not torch.allclose(result, reference, atol=1e-3, rtol=1e-3):
        raise Unequal(f"fam: {name}: not what ours gives")


bswa, fam = model(0), model(BLOCK // 16)
position = torch.arange(T, device=DEVICE)
dense = readable(0, 0, position[:, None], position)
block_mask = create_block_mask(readable, None, None, T, T, device=DEVICE)
compiled = torch.compile(flex_attention)
ours = lambda ids: bswa(ids)[0]
with_mask = logits_with(lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, attn_mask=dense))
with_flex = logits_with(lambda q, k, v: compiled(q, k, v, block_mask=block_mask))


def fam_trained(ids):
    return torch.autograd.grad(fam(ids)[0].logsumexp(-1).sum(), fam.embedding.weight)[0]


forward = {"paperwalk": only_forward(ours), "SDPA, dense mask": only_forward(with_mask)}
forward |= {
    "FlexAttention, compiled": only_forward(with_flex),
    "paperwalk, with the FAM": only_forward(lambda ids: fam(ids)[0]),
}
backward = {"paperwalk": trained(ours), "SDPA, dense mask": trained(with_mask)}
backward |= {"FlexAttention, compiled": trained(with_flex)} if DEVICE == "cuda" else {}  # no backward on a CPU
backward |= {"paperwalk, with the FAM": fam_trained}
CONTESTS = [
    Contest("fam", f"forward, {CASE}", inputs, forward, check),
    Contest("fam", f"forward and backward, {CASE}", inputs, backward, check),
]

if __name__ == "__main__":
    for contest in CONTESTS:
        run(contest)
