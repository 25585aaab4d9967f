"""Attention over blocks and memory segments (BSWA) on a long text, against the same layers with a dense mask in SDPA
and with FlexAttention; TransformerFAM, which reads all blocks at once, against itself block after block; and what
TransformerFAM costs over BSWA of the same sizes. Forward, and with backward."""

import math
from functools import partial

import torch
from torch.nn import functional
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from benchmarks.harness import Contest, Unequal, run
from paperwalk.models.fam import FAMConfig, TransformerFAM

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ON_CPU = dict(batch=4, tokens=512, block=64, F=4, D=128, layers=2)
ON_GPU = dict(batch=4, tokens=8192, block=256, F=16, D=512, layers=4)  # enough to fill it
BASE = ON_GPU if DEVICE == "cuda" else ON_CPU
VOCABULARY, M, HEAD = 256, 1, 64
VARIED = [{}, {"tokens": BASE["tokens"] // 4}, {"tokens": BASE["tokens"] * 2}]
VARIED += [{"F": BASE["block"] // part} for part in (64, 4, 1)]
VARIED += [{"D": BASE["D"] // 2}, {"D": BASE["D"] * 2}]
VARIED += [{"batch": 1}, {"batch": 32, "tokens": BASE["tokens"] // 2}]  # the whole length would not fit into 80 GB
PEERS = BASE if DEVICE == "cuda" else BASE | dict(batch=1, tokens=2048)
B, T, BLOCK = PEERS["batch"], PEERS["tokens"], PEERS["block"]


def model(sizes, fam_length):
    torch.manual_seed(0)
    D = sizes["D"]
    config = dict(d_model=D, n_layers=sizes["layers"], n_heads=D // HEAD, d_ff=-(-8 * D // 96) * 32)
    config |= dict(vocab_size=VOCABULARY, block_size=sizes["block"], memory_segments=M, fam_length=fam_length)
    return TransformerFAM(FAMConfig(**config)).to(DEVICE)


def text(sizes):
    shape, generator = (sizes["batch"], sizes["tokens"]), torch.Generator().manual_seed(0)
    return torch.randint(VOCABULARY, shape, generator=generator).to(DEVICE)


def step(logits, weights, ids):
    """The loss of next tokens and its gradient in all weights."""
    loss = functional.cross_entropy(logits(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    return loss.detach(), *torch.autograd.grad(loss, weights)


def weights_of(network):
    return [weight for weight in network.parameters() if weight.numel() > 0]  # without FAM the prompt is empty


def readable(batch, head, query, key):
    """Whether a token may read another: not a later one, and none before the block's memory segments."""
    return (key <= query) & (key // BLOCK >= query // BLOCK - M)


def logits_with(attend):
    """Logits of BSWA with attend(q, k, v) over all tokens of the text: (B, H, T, head_dim) each."""

    def logits(ids):
        x = bswa.embedding(ids)
        rotary = bswa._rotary(position)
        for block in bswa.blocks:
            q, k, v = block.attention(block.attention_norm(x), rotary)
            x = block.finish(block.attention, attend(q, k, v).transpose(1, 2).flatten(2), x)
        return functional.linear(bswa.norm(x), bswa.embedding.weight)

    return logits


def equal(name, result, reference):
    for theirs, ours in zip(result, reference, strict=True):
        if not torch.allclose(theirs, ours, atol=1e-3 * float(ours.abs().max()), rtol=1e-3):
            raise Unequal(f"fam: {name}: not what ours gives")


def block_after_block(ids):
    logits, state = [], None
    for block in ids.split(BLOCK, 1):
        part, state = with_fam(block, state)
        logits.append(part)
    return torch.cat(logits, 1)


def peers():
    """The contests of BSWA and of TransformerFAM with other ways to the same logits and gradients."""
    case = f"{T} tokens, block {BLOCK}, M {M}" + (f", batch {B}, D {PEERS['D']}" if B > 1 else "")
    for passes in ("forward", "forward and backward"):
        for network, case_of_network, ways in ((bswa, case, ATTENTION), (with_fam, f"{case}, F {PEERS['F']}", SCANS)):
            work = {}
            for name, logits in ways.items():
                if passes == "forward":
                    work[name] = torch.no_grad()(logits)
                elif DEVICE == "cuda" or "Flex" not in name:  # it has no backward on a CPU
                    work[name] = partial(step, logits, weights_of(network))
            yield Contest("fam", f"{passes}, {case_of_network}", lambda: (text(PEERS),), work, equal)


bswa, with_fam = model(PEERS, 0), model(PEERS, PEERS["F"])
position = torch.arange(T, device=DEVICE)
dense = readable(0, 0, position[:, None], position)
block_mask = create_block_mask(readable, None, None, T, T, device=DEVICE)
compiled = torch.compile(flex_attention)
ATTENTION = {
    "BSWA": lambda ids: bswa(ids)[0],
    "SDPA, dense mask": logits_with(lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, attn_mask=dense)),
    "FlexAttention, compiled": logits_with(lambda q, k, v: compiled(q, k, v, block_mask=block_mask)),
}
SCANS = {"TransformerFAM": lambda ids: with_fam(ids)[0], "block after block": block_after_block}


def both(sizes):
    """BSWA and TransformerFAM with the same weights, where both have them, and a text."""
    without, fam = model(sizes, 0), model(sizes, sizes["F"])
    without.load_state_dict(fam.state_dict() | {"prompt": without.prompt})
    return without, fam, text(sizes)


def finite(name, result, reference):
    """The two models give different results; only what no result may be is left to check."""
    if result[0].shape != reference[0].shape or not all(part.isfinite().all() for part in result):
        raise Unequal(f"fam_cost: {name}: not finite, or of another shape")


def recorded(work):
    """The work as a CUDA graph, recorded at the first call and replayed at each: on a GPU, what the work itself takes
    when nothing waits for the host."""
    graph, result = None, None

    def replay(*inputs):
        nonlocal graph, result
        if graph is None:
            work(*inputs)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                result = work(*inputs)
        graph.replay()
        return result

    return replay


def costs():
    """The contests of TransformerFAM with BSWA: one size after the other is varied."""
    forward = torch.no_grad()(lambda network, ids: network(ids)[0])
    training = lambda network, ids: step(lambda ids: network(ids)[0], weights_of(network), ids)
    passes = {"forward": forward, "forward and backward": training}
    for changed in VARIED:
        sizes = BASE | changed
        case = ", ".join(f"{name} {value}" for name, value in sizes.items())
        rounds = 9 if math.prod(sizes.values()) <= math.prod(BASE.values()) and DEVICE == "cpu" else 5
        works = passes | ({"forward and backward, recorded": recorded} if DEVICE == "cuda" else {})
        for name, work in works.items():
            of_bswa, of_fam = (recorded(training), recorded(training)) if work is recorded else (work, work)
            implementations = {
                "BSWA": lambda bswa, fam, ids, work=of_bswa: work(bswa, ids),
                "TransformerFAM": lambda bswa, fam, ids, work=of_fam: work(fam, ids),
            }
            make = lambda sizes=sizes: both(sizes)
            yield Contest("fam_cost", f"{name}, {case}", make, implementations, finite, rounds, sizes | {"pass": name})


def kernels():
    """The contests of the Triton kernels with the plain batched products: a FAM reads itself and a block."""
    from paperwalk.kernels.fam_scan import torch_impl, triton_impl

    H, ways = 8, {"Triton": triton_impl, "batched products": torch_impl}
    for f, block, d in [
        (16, 256, 64),
        (64, 256, 64),
        (256, 1024, 64),
        (16, 256, 128),
        (64, 1024, 128),
        (256, 1024, 128),
    ]:
        for rows in (1, 32):

            def make(rows=rows, f=f, S=f + block, d=d):
                draw = lambda *shape: torch.randn(shape, device=DEVICE)
                angle = draw(f, 1, d)
                forward = draw(rows, f, 3, H, d), angle.cos(), angle.sin(), draw(rows, H, S, d), draw(rows, H, S, d)
                return forward, (draw(rows * f, H * d), draw(rows, H, S, d), draw(rows, H, S, d))

            def both_ways(module, given, upstream):
                _, cos, sin, keys, values = given
                q, p, y = module.attend(*given)
                return y, *module.attend_backward(upstream[0], y, p, q, keys, values, *upstream[1:], cos, sin)

            case = f"forward and backward, recorded: {rows * H} heads of width {d}, F {f}, block {block}"
            works = {name: recorded(partial(both_ways, module)) for name, module in ways.items()}
            yield Contest("fam_kernel", case, make, works, equal)


def contests():
    """All of them, one at a time: what a recorded one keeps on a GPU goes with it."""
    yield from peers()
    yield from costs()
    if DEVICE == "cuda":
        yield from kernels()


if __name__ == "__main__":
    for contest in contests():
        run(contest)
