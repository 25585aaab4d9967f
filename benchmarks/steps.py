"""A training step of each chapter, at its laptop sizes, beside its operations alone: forward, backward, AdamW on random
tokens, and products of large matrices with as many operations. Their share says how far a step is from the peak."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness import Contest, run
from paperwalk import costs, runs
from paperwalk.kernels.goldfish_mask import goldfish_mask
from paperwalk.kernels.linear_cross_entropy import linear_cross_entropy, naive
from paperwalk.models.decoder import Decoder, DecoderConfig

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIDE = 512 if DEVICE == "cpu" else 8192  # of the floor's matrices
SMOLLM2 = DecoderConfig(49152, 576, 30, 9, 3, 1536, 2048, rope_theta=1e5)  # 135M parameters
TOKENS = 256  # of the one text of its step


def stepped(model, loss):
    """A function that takes one step: the loss of the model, its gradient, AdamW; the weights hardly move."""
    optimizer = torch.optim.AdamW(model.parameters(), 1e-9, fused=True)

    def step():
        optimizer.zero_grad()
        total = loss()
        total.backward()
        optimizer.step()
        return total.detach()

    return step


def floor(step):
    """As many operations as a step's products have, as products of square matrices."""
    with FlopCounterMode(display=False) as counter:
        step()
    times = max(1, round(counter.get_total_flops() / (2 * SIDE**3)))
    a, b = (torch.randn(SIDE, SIDE, device=DEVICE) for _ in range(2))

    def products():
        for _ in range(times):
            a @ b

    return products


def of_chapter(chapter):
    """A step of the chapter's own model and loss, as `paperwalk plan` counts them."""
    values = runs.profile_values(chapter, "laptop")
    training = costs.training_of(chapter, values)
    torch.manual_seed(0)
    model = training.build().to(DEVICE)
    ids = [part.random_(8).to(DEVICE) for part in training.inputs(training.rows, True)]
    step = stepped(model, lambda: training.loss(model, *ids))
    sizes = " and ".join("x".join(map(str, part.shape)) for part in ids)
    return Contest(
        "steps", f"{chapter}: {sizes} tokens", tuple, {"step": step, "floor: its products": floor(step)}, same
    )


def of_decoder(name, config, rows, tokens):
    """A step of a decoder with the goldfish loss, k = 4: by the fused kernel, and by all logits."""
    torch.manual_seed(0)
    model = Decoder(config).to(DEVICE)
    ids = torch.randint(config.vocab_size, (rows, tokens), device=DEVICE)
    keep, targets = goldfish_mask(ids, 4, 13)[:, 1:], ids[:, 1:]
    loss = lambda kernel: kernel(model.hidden(ids)[:, :-1], model.lm_head, targets, keep) / keep.sum()
    step = stepped(model, lambda: loss(linear_cross_entropy))
    ways = {"step": step, "all logits": stepped(model, lambda: loss(naive.linear_cross_entropy))}
    case = f"{name}: {rows}x{tokens} tokens"
    return Contest("steps", case, tuple, ways | {"floor: its products": floor(step)}, same, rounds=3)


def same(name, result, reference):
    torch.testing.assert_close(result, reference, rtol=1e-3, atol=1e-3)


def contests():
    """One after the other, for the largest takes some gigabytes."""
    values = runs.profile_values("goldfish", "laptop")
    sizes = costs.training_of("goldfish", values).build().config
    yield of_decoder("goldfish", sizes, values["batch"], values["text_tokens"])
    for chapter in ("searchformer", "transformer_fam", "rest"):
        yield of_chapter(chapter)
    yield of_decoder("SmolLM2-135M", SMOLLM2, 1, TOKENS)


if __name__ == "__main__":
    for contest in contests():
        run(contest)
