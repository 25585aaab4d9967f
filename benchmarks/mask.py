"""The goldfish mask at h = 13 on 2^22 tokens, against the released code's form, vectorised, and our torch form."""

import torch

from benchmarks.harness import Contest, Unequal, run
from paperwalk.kernels.goldfish_mask import goldfish_mask, torch_impl

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
K, H, TOKENS = 4, 13, 1 << 22


def inputs():
    return (torch.randint(50_000, (1, TOKENS), generator=torch.Generator().manual_seed(0)).to(DEVICE),)


def check(name, result, reference):
    """The released form makes other masks (its hash is another): only its share of dropped targets is compared."""
    if name == "released code, vectorised":
        if abs(float((~result).float().mean()) - 1 / K) > 0.01:
            raise Unequal(f"mask: {name}: does not drop one target in {K}")
    elif not torch.equal(result, reference):
        raise Unequal(f"mask: {name}: its mask is not ours")


def copy(ids):
    """Reads eight bytes a token and writes one: the least that a mask has to do."""
    return ids.to(torch.uint8)


CONTESTS = [
    Contest(
        "mask",
        f"{TOKENS} tokens, h {H}, k {K}",
        inputs,
        {
            "paperwalk": lambda ids: goldfish_mask(ids, K, H),
            "paperwalk, torch form": lambda ids: torch_impl.hash_mask(ids, K, H),
            "released code, vectorised": lambda ids: torch_impl.released_mask(ids, K, H),
            "floor: a copy of the same bytes": copy,
        },
        check,
        rounds=15,
    )
]

if __name__ == "__main__":
    for contest in CONTESTS:
        run(contest)
