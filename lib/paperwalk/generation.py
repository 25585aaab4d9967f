"""Continue prompts with a decoder: greedy, sampled or by beam search.

Three parts: choosing tokens from logits (`choose_greedy`, `choose_sample`, `truncate`), searching
(`_one_by_one`, `_beam`), and the growing prefixes that give the logits (`_Prefixes`), the only part that
knows the model.
"""

import math

import torch
import torch.nn.functional as F

METHODS = ("greedy", "sample", "beam")


@torch.no_grad()
def generate(
    model,
    prompts,
    max_new_tokens,
    method="greedy",
    temperature=1.0,
    top_k=None,
    top_p=None,
    beams=1,
    eos=None,
    generator=None,
    use_cache=True,
    length_penalty=0.0,
):
    """Continuations of a batch of prompts: a list of B LongTensors of 1..max_new_tokens ids each.

    model: a `Decoder`. prompts: LongTensor (B, P), or a list of B 1-D LongTensors of any lengths.
    method: "greedy" takes the likeliest token; "sample" draws from softmax(logits / temperature) cut down by
    `truncate` to top_k, top_p; "beam" keeps the `beams` likeliest continuations at each step and returns the
    best by total log-probability / length^length_penalty (0: the total itself; Wu et al. 2016, section 7,
    without its constants). eos: id that ends a continuation and is kept as its last token.
    generator: source of the draws, on the model's device. use_cache=False reads the whole prefix anew at each
    step: slow, and the reference for the cached path.
    Raises ValueError naming parameter, value and what is allowed, also for one that its method would ignore.
    """
    prompts, padding = _left_pad(prompts, model.lm_head.device)
    _check(
        model,
        prompts,
        max_new_tokens,
        method,
        temperature,
        top_k,
        top_p,
        beams,
        eos,
        generator,
        length_penalty,
    )
    prefixes = _Prefixes(model, prompts, padding, max_new_tokens, use_cache)
    if method == "beam":
        tokens = _beam(prefixes, max_new_tokens, beams, eos, length_penalty)
    elif method == "sample":
        tokens = _one_by_one(
            prefixes, max_new_tokens, eos, lambda x: choose_sample(x, temperature, top_k, top_p, generator)
        )
    else:
        tokens = _one_by_one(prefixes, max_new_tokens, eos, choose_greedy)
    return [_cut(row, eos) for row in tokens]


def choose_greedy(logits):
    """The likeliest token of each row: (R, V) -> (R,)."""
    return logits.argmax(-1)


def choose_sample(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    """A token drawn from softmax(logits / temperature), truncated: (R, V) -> (R,)."""
    probability = truncate(logits.float() / temperature, top_k, top_p).softmax(-1)
    return probability.multinomial(1, generator=generator).squeeze(-1)


def truncate(logits, top_k=None, top_p=None):
    """logits (R, V) with -inf outside the top_k largest, and outside the smallest set of likeliest tokens
    whose probability (among those that top_k left) reaches top_p (Holtzman et al. 2020, section 3.1)."""
    if top_k is None and top_p is None:
        return logits
    value, order = logits.sort(-1, descending=True)
    if top_k is not None:
        value[:, top_k:] = -math.inf
    if top_p is not None and top_p < 1:
        probability = value.softmax(-1)
        before = probability.cumsum(-1) - probability  # (R, V), mass of the likelier tokens
        value = value.masked_fill(before >= top_p, -math.inf)
    return logits.scatter(-1, order, value)


class _Prefixes:
    """R growing rows of tokens; `logits` (R, V) are those of the token that comes next in each row."""

    def __init__(self, model, prompts, padding, max_new_tokens, use_cache):
        self.model, self.ids, self.padding = model, prompts, padding
        R, P = prompts.shape
        self.cache = model.new_cache(R, P + max_new_tokens - 1) if use_cache else None
        self._read(prompts)

    def append(self, tokens):
        """Add one token (R,) to each row."""
        self.ids = torch.cat((self.ids, tokens[:, None]), 1)
        self._read(self.ids if self.cache is None else tokens[:, None])

    def reorder(self, rows):
        """Make row r a copy of what was row rows[r]; rows may repeat or vanish."""
        self.ids, self.logits = self.ids[rows], self.logits[rows]
        self.padding = None if self.padding is None else self.padding[rows]
        if self.cache is not None:
            self.cache.reorder(rows)

    def _read(self, ids):
        last = self.model.hidden(ids, self.cache, self.padding)[:, -1]  # (R, D)
        self.logits = F.linear(last, self.model.lm_head)


def _one_by_one(prefixes, max_new_tokens, eos, choose):
    """Tokens (B, n) picked by `choose` from each row's logits, until n = max_new_tokens or all rows met eos.
    A row that met it runs on with the others; what follows its eos is to be cut."""
    chosen = [choose(prefixes.logits)]
    ended = chosen[0] == eos
    while len(chosen) < max_new_tokens and not (eos is not None and ended.all()):
        prefixes.append(chosen[-1])
        chosen.append(choose(prefixes.logits))
        ended = ended | (chosen[-1] == eos)
    return torch.stack(chosen, 1)


def _beam(prefixes, max_new_tokens, beams, eos, length_penalty):
    """Tokens (B, n) of the best beam of each prompt. An ended beam keeps its place and its score while it is
    among the best; it is filled up with eos."""
    B, V = prefixes.logits.shape
    device = prefixes.logits.device
    first = torch.arange(B, device=device)[:, None] * beams  # (B, 1), row of each prompt's beam 0
    prefixes.reorder(torch.arange(B, device=device).repeat_interleave(beams))
    score = torch.full((B, beams), -math.inf, device=device, dtype=torch.float64)
    score[:, 0] = 0  # the beams start as copies: let one of them have children
    length = torch.zeros(B, beams, device=device, dtype=torch.long)
    ended = torch.zeros(B, beams, device=device, dtype=torch.bool)
    tokens = torch.empty(B, beams, 0, device=device, dtype=torch.long)
    while True:
        step = prefixes.logits.double().log_softmax(-1).view(B, beams, V)
        if eos is not None:
            step[ended] = -math.inf
            step[..., eos].masked_fill_(ended, 0)
        length = length + ~ended
        total = score[..., None] + step  # (B, beams, V)
        best = (total / length[..., None] ** length_penalty).flatten(1).topk(beams).indices  # (B, beams)
        score = total.flatten(1).gather(1, best)
        parent, token = best // V, best % V
        tokens = torch.cat((tokens.take_along_dim(parent[..., None], 1), token[..., None]), -1)
        length, ended = length.gather(1, parent), ended.gather(1, parent)
        if eos is not None:
            ended = ended | (token == eos)
        if tokens.shape[-1] == max_new_tokens or ended.all():
            return tokens[:, 0]
        prefixes.reorder((first + parent).flatten())
        prefixes.append(token.flatten())


def _cut(row, eos):
    """row (n,) up to and with its first eos."""
    if eos is None:
        return row
    ends = (row == eos).nonzero()
    return row[: ends[0, 0] + 1] if len(ends) else row


def _left_pad(prompts, device):
    """(B, P) ids and the padding counts (B,) on each row's left (None: no padding)."""
    if isinstance(prompts, torch.Tensor):
        if prompts.dim() != 2 or 0 in prompts.shape:
            raise ValueError(f"prompts of shape {tuple(prompts.shape)}: must be (B, P), neither of them 0")
        _check_ids(prompts)
        return prompts.to(device), None
    shapes = [tuple(prompt.shape) for prompt in prompts]
    if not shapes or any(len(shape) != 1 or shape[0] == 0 for shape in shapes):
        raise ValueError(f"prompts of shapes {shapes}: must be at least one 1-D tensor, none of them empty")
    for prompt in prompts:
        _check_ids(prompt)
    P = max(map(len, prompts))
    padding = torch.tensor([P - len(prompt) for prompt in prompts], device=device)
    ids = torch.stack([F.pad(prompt.to(device), (P - len(prompt), 0)) for prompt in prompts])
    return ids, padding if padding.any() else None


def _check_ids(prompt):
    if prompt.dtype != torch.long:
        raise ValueError(f"prompts of dtype {prompt.dtype}: must be torch.int64 token ids")


def _check(model, prompts, n, method, temperature, top_k, top_p, beams, eos, generator, length_penalty):
    config, P = model.config, prompts.shape[1]

    def require(name, value, holds, allowed):
        if not holds:
            raise ValueError(f"{name} = {value!r}: must be {allowed}")

    def whole(value, low, high=math.inf):
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    def number(value):
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

    low, high = prompts.min().item(), prompts.max().item()
    inside = 0 <= low and high < config.vocab_size
    require("prompts", (low, high), inside, f"ids from 0 to {config.vocab_size - 1}")
    room = config.max_positions - P + 1
    fits = f"(max_positions = {config.max_positions}, longest prompt {P})"
    require("prompts", f"{P} tokens", room >= 1, f"at most {config.max_positions} tokens long")
    require("max_new_tokens", n, whole(n, 1, room), f"a whole number from 1 to {room} {fits}")
    require("method", method, method in METHODS, f"one of {', '.join(METHODS)}")
    require("temperature", temperature, number(temperature) and temperature > 0, "a finite number above 0")
    vocabulary = f"a whole number from 1 to {config.vocab_size}"
    require("top_k", top_k, top_k is None or whole(top_k, 1, config.vocab_size), f"None or {vocabulary}")
    require("top_p", top_p, top_p is None or (number(top_p) and 0 < top_p <= 1), "None or above 0, at most 1")
    require("beams", beams, whole(beams, 1), "a whole number of at least 1")
    require("length_penalty", length_penalty, number(length_penalty), "a finite number")
    last = config.vocab_size - 1
    require("eos", eos, eos is None or whole(eos, 0, last), f"None or a token id from 0 to {last}")
    device = model.lm_head.device
    same = generator is None or generator.device.type == device.type
    require("generator", generator and str(generator.device), same, f"None or on the model's device, {device}")
    for name, value, default, used_by in (
        ("temperature", temperature, 1.0, "sample"),
        ("top_k", top_k, None, "sample"),
        ("top_p", top_p, None, "sample"),
        ("beams", beams, 1, "beam"),
        ("length_penalty", length_penalty, 0.0, "beam"),
    ):
        ignored = value != default and method != used_by
        require(name, value, not ignored, f"{default} with method {method!r}: only {used_by!r} uses it")
