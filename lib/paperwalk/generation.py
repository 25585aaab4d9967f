"""Continue prompts with a decoder, or decode sources with an encoder-decoder: greedy, sampled or by beam search.

Three parts: choosing tokens from logits (`choose_greedy`, `choose_sample`, `truncate`), searching
(`_one_by_one`, `_beam`), and the growing prefixes that give the logits (`_Prefixes`), the only part that
knows the model. On a GPU a step is recorded once as a CUDA graph and replayed (`_Step`), until rows leave or the cache
grows, and it is asked only now and then whether all rows have ended (`_Draws` gives back what was drawn too much). On a
CPU the layers are exchanged for faster forms first (`_prepared`), for as long as the call takes.
"""

import collections
import copy
import functools
import math

import torch
import torch.nn.functional as F
from torch import nn

from paperwalk.kernels.rms_norm import rms_norm
from paperwalk.models.seq2seq import Seq2Seq

METHODS = ("greedy", "sample", "beam")
COMPACT_AT = 0.8  # ended rows leave the batch when this share of it, or less, is left
SHARE_UNTIL = 0.6  # a prompt's rows go separate ways when this share of those kept together is live, or less
CACHE_STEP = 16  # least tokens by which the cache grows: one with little room to spare is read and reordered faster
PREPARED_FROM = 8  # new tokens from which on it pays to prepare the model
PACKED_SIZE = 2**17  # numbers in a matrix from which on it pays to lay it out anew, for several rows
OUTSIDE_STEPS = ("encoder", "head")  # parts of a Seq2Seq: one has run before the steps, the other is applied by itself
RECORDED_ON = ("cuda",)  # devices where a step has fixed shapes; what changes them costs a recording, so it is rarer:
RECORDED_COMPACT_AT, RECORDED_CACHE_STEP = 0.5, 256
RECORDED_CHECK_STEP = 8  # tokens after which it is asked there which rows have ended: the answer is waited for


def generate(
    model,
    prompts,
    max_new_tokens,
    method="greedy",
    temperature=1.0,
    top_k=None,
    top_p=None,
    beams=1,
    samples=1,
    bos=None,
    eos=None,
    pad=None,
    generator=None,
    use_cache=True,
    length_penalty=0.0,
):
    """Continuations of a batch of B prompts: a list of LongTensors of 1..max_new_tokens ids each.

    model: a `Decoder`, which continues the prompts, or a `Seq2Seq`, whose prompts are the sources: a continuation
    is then a target without the id `bos` that starts it. prompts: LongTensor (B, P), or a list of B 1-D
    LongTensors of any lengths. pad: id that fills the sources of a tensor on the right (None: they are full).
    method: "greedy" takes the likeliest token; "sample" draws from softmax(logits / temperature) cut down by
    `truncate` to top_k, top_p; "beam" keeps the `beams` likeliest continuations at each step and returns the
    best by total log-probability / length^length_penalty (0: the total itself; Wu et al. 2016, section 7,
    without its constants). samples: continuations drawn for each prompt, which is read once; those of prompt b
    are the rows b * samples to (b + 1) * samples - 1 of the list.
    eos: id that ends a continuation and is kept as its last token. generator: source of the draws, on the
    model's device: at each step one for every row, ended ones included, so that a row's draws do not depend on
    the other rows. use_cache=False reads the whole prefix anew at each step: slow, and the reference for the
    cached path.
    Raises ValueError naming parameter, value and what is allowed, also for one that its method or its model
    would ignore.
    """
    _check_ends(model, bos, pad)
    ids, padding = _pad(prompts, model.lm_head.device, left=not isinstance(model, Seq2Seq), pad=pad)
    _check(
        model,
        ids,
        max_new_tokens,
        method,
        temperature,
        top_k,
        top_p,
        beams,
        samples,
        eos,
        generator,
        length_penalty,
    )

    draws = _Draws(len(ids) * samples, ids.device, generator)

    def sample(logits, rows):
        return choose_sample(logits, temperature, top_k, top_p, draws()[rows])

    def greedy(logits, rows):
        return choose_greedy(logits)

    with torch.inference_mode():
        head = functools.partial(F.linear, weight=model.lm_head)
        if use_cache and max_new_tokens >= PREPARED_FROM and _can_prepare(model.lm_head):
            several = len(ids) * max(samples, beams) > 1
            if several and model.lm_head.numel() >= PACKED_SIZE:
                head = _Packed(model.lm_head)
            model = _prepared(model, several)
        prefixes = _Prefixes(model, head, ids, padding, bos, use_cache, max_new_tokens)
        if method == "beam":
            tokens = _beam(prefixes, max_new_tokens, beams, eos, length_penalty)
        else:
            tokens = _one_by_one(prefixes, max_new_tokens, samples, eos, sample if method == "sample" else greedy)
    lengths = _lengths(tokens, eos)
    draws.give_back(tokens.shape[1] - max(lengths))
    rows = tokens.clone()  # can be trained on: it is no inference tensor
    return [row[:length] for row, length in zip(rows, lengths)]


def sequence_log_probs(model, prompts, continuations, bos, pad=None):
    """log p(continuation | prompt) of a `Seq2Seq` in nats, at temperature 1: a tensor (R,), differentiable.

    prompts: B sources as in `generate`. continuations: R targets without bos as `generate` returns them, a list
    of 1-D LongTensors or a LongTensor (R, T) filled with `pad` on the right; R is a multiple of B, and R/B of
    them in a row belong to one prompt. Every token counts, eos too if there. float32, or the model's dtype if
    wider. Raises ValueError as `generate` does.
    """
    if not isinstance(model, Seq2Seq):
        raise ValueError(f"model = {type(model).__name__}: must be a Seq2Seq")
    _check_ends(model, bos, pad)
    device, config = model.lm_head.device, model.config
    source, source_padding = _pad(prompts, device, left=False, pad=pad)
    target, padding = _pad(continuations, device, left=False, pad=pad, name="continuations")
    for name, ids in (("prompts", source), ("continuations", target)):
        _check_range(name, ids, config.vocab_size)
    logits = model(source, F.pad(target[:, :-1], (1, 0), value=bos), source_padding)  # (R, T, V)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    log_probs = -F.cross_entropy(logits.transpose(1, 2), target, reduction="none")  # (R, T)
    if padding is not None:
        T = target.shape[1]
        real = torch.arange(T, device=device) < (T - padding)[:, None]
        log_probs = log_probs.where(real, 0)
    return log_probs.sum(1)


def choose_greedy(logits):
    """The likeliest token of each row: (R, V) -> (R,)."""
    return logits.argmax(-1)


def choose_sample(logits, temperature=1.0, top_k=None, top_p=None, uniform=None):
    """A token drawn from softmax(logits / temperature), truncated: (R, V) -> (R,).

    uniform: float64 (R,), the draws, each in [0, 1): row r takes the first token whose cumulated probability
    exceeds uniform[r]. None: drawn here.
    """
    if uniform is None:
        uniform = torch.rand(len(logits), dtype=torch.float64, device=logits.device)
    logits = logits.float()
    if temperature != 1:
        logits = logits / temperature
    probability = truncate(logits, top_k, top_p).softmax(-1)
    cumulated = probability.cumsum(-1, dtype=torch.float64)
    return torch.searchsorted(cumulated, uniform[:, None] * cumulated[:, -1:], right=True).squeeze(-1)


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


class _Draws:
    """Uniform numbers from 0 to 1, float64 (rows,), drawn at each step."""

    def __init__(self, rows, device, generator):
        self.options = dict(size=(rows,), dtype=torch.float64, device=device, generator=generator)
        default = torch.cuda.default_generators[device.index] if device.type == "cuda" else torch.default_generator
        self.generator = generator or default
        self.states = collections.deque(maxlen=RECORDED_CHECK_STEP)  # before each of the last steps

    def __call__(self):
        self.states.append(self.generator.get_state())
        return torch.rand(**self.options)

    def give_back(self, steps):
        """Put the generator back to where it stood before the last `steps` draws, at most RECORDED_CHECK_STEP."""
        if steps and self.states:
            self.generator.set_state(self.states[-steps])


class _Packed(nn.Module):
    """F.linear with a copy of a matrix (N, K) in blocks, as oneDNN reads it: up to twice as fast for a few dozen rows,
    whose products are bound by the reading. The sums have another order."""

    def __init__(self, weight):
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, None)

    def forward(self, x):
        return torch.ops.mkldnn._linear_pointwise.default(x, self.weight, None, "none", [], "")


class _Norm(nn.Module):
    """An nn.RMSNorm as one compiled loop."""

    def __init__(self, norm):
        super().__init__()
        self.weight, self.eps = norm.weight, norm.eps

    def forward(self, x):
        return rms_norm(x, self.weight, self.eps)


def _can_prepare(weight):
    here = weight.device.type == "cpu" and weight.dtype == torch.float32
    return here and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _prepared(module, pack):
    """A copy of the module with `_Norm` and, if pack, `_Packed` in what a step goes through; it shares all else."""
    if isinstance(module, nn.RMSNorm):
        return _Norm(module)
    if isinstance(module, nn.Linear) and pack and module.weight.numel() >= PACKED_SIZE:
        return _Packed(module.weight)
    parts = module.named_children()
    children = {name: part if name in OUTSIDE_STEPS else _prepared(part, pack) for name, part in parts}
    if not children:
        return module
    twin = copy.copy(module)
    twin._modules = children
    return twin


class _Prefixes:
    """R growing rows of tokens, a prompt's together; `logits` (R, V) are those of the token that comes next.

    At first there is one row a prompt: the prompt itself for a `Decoder`, bos for a `Seq2Seq`.
    """

    def __init__(self, model, head, prompts, padding, bos, use_cache, max_new_tokens):
        self.model, self.head = model, head
        self.memory, self.padding = None, padding
        self.ids = prompts
        if isinstance(model, Seq2Seq):
            self.memory, self.padding = model.encode(prompts, padding), None
            self.ids = prompts.new_full((len(prompts), 1), bos)
        R, P = self.ids.shape
        self.recorded = use_cache and prompts.device.type in RECORDED_ON
        self.step, self.last_graph = None, None
        self.room = RECORDED_CACHE_STEP if self.recorded else CACHE_STEP
        self.compact_at = RECORDED_COMPACT_AT if self.recorded else COMPACT_AT
        self.longest = P + max_new_tokens - 1  # tokens that are ever read: the last one is not
        self.cache = model.new_cache(R, min(P + self.room, self.longest)) if use_cache else None
        self._read(self.ids)

    @property
    def must_record(self):
        """Whether the next step has to be recorded because the cache is full: rows then leave at little cost."""
        return self.recorded and self.cache.length == self.cache.capacity

    def is_check_due(self, n):
        """Whether to ask, after n tokens, which rows have ended."""
        return not self.recorded or n % RECORDED_CHECK_STEP == 0 or self.must_record

    def should_part(self, live, kept, prompts):
        """Whether `live` rows are to have a copy each of what is kept of a prompt, and not share it as `kept` rows,
        equally many for each of the `prompts`. Recorded steps read all the tokens that are kept: fewer are better."""
        if not self.recorded:
            return live <= SHARE_UNTIL * kept
        S = 0 if self.memory is None else self.memory.keys[0].shape[2]
        return live * (S + self.cache.capacity) < prompts * S + kept * self.cache.capacity

    def append(self, tokens):
        """Add one token (R,) to each row."""
        if self.cache is not None:
            if self.cache.length == self.cache.capacity:
                more = max(self.room, self.cache.capacity // 4)
                self._drop_step()
                self.cache.grow(min(more, self.longest - self.cache.capacity))
            if self.recorded:
                if self.step is None:
                    self.step = _Step(self.model, self.head, self.memory, self.cache, self.padding, self.last_graph)
                self.logits = self.step(tokens)
            else:
                self._read(tokens[:, None])
        else:
            self.ids = torch.cat((self.ids, tokens[:, None]), 1)
            self._read(self.ids)

    def reorder(self, rows, prompts=None):
        """Make row r a copy of what was row rows[r]; rows may repeat or vanish. prompts: those that keep rows,
        if not all do. Every prompt that stays must have as many rows as the others, and its rows together.
        A recorded step stays valid if the number of rows does: all is then moved within the tensors that it reads."""
        in_place = self.recorded and len(rows) == len(self.logits) and prompts is None
        if not in_place:
            self._drop_step()
        self.logits = self.logits[rows]
        if self.padding is not None:
            self.padding = self.padding.copy_(self.padding[rows]) if in_place else self.padding[rows]
        if self.memory is not None and prompts is not None:
            self.memory = self.memory[prompts]
        if self.cache is not None:
            self.cache.reorder(rows, in_place)
        else:
            self.ids = self.ids[rows]

    def _drop_step(self):
        """Forget the recorded step; its graph stays, so that the next one can use its memory."""
        if self.step is not None:
            self.step, self.last_graph = None, self.step.graph

    def _read(self, ids):
        if self.memory is None:
            hidden = self.model.hidden(ids, self.cache, self.padding)
        else:
            hidden = self.model.hidden(ids, self.memory, self.cache)
        self.logits = self.head(hidden[:, -1])


class _Step:
    """Reads one more token of each row: on a GPU recorded at the first call, and replayed.

    It holds the addresses of the cache, memory and padding: whoever puts others in their place makes a new step.
    last_graph: an earlier recording that is not replayed any more, whose memory this one may use.
    """

    def __init__(self, model, head, memory, cache, padding, last_graph=None):
        self.model, self.head = model, head
        self.memory, self.cache, self.padding = memory, cache, padding
        self.ids = cache.position.new_zeros(cache.batch, 1)
        self.graph, self.last_graph = None, last_graph
        cache.position.fill_(cache.length)

    def __call__(self, tokens):
        """The logits (R, V) of what follows the tokens (R,); the next call writes over them."""
        self.ids.copy_(tokens[:, None])
        if self.graph is None and self.ids.is_cuda:
            self._record()
        self.graph.replay() if self.graph else self._run()
        self.cache.length += 1
        return self.logits

    def _run(self):
        rest = (self.cache, self.padding) if self.memory is None else (self.memory, self.cache)
        self.logits = self.head(self.model.hidden_next(self.ids, *rest)[:, -1])
        self.cache.position += 1

    def _record(self):
        stream = torch.cuda.Stream()  # libraries allocate at their first calls, which a graph must not contain
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self._run()  # writes into the slot that the first replay fills
                self.cache.position.fill_(self.cache.length)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, pool=self.last_graph and self.last_graph.pool()):
            self._run()
        self.last_graph = None  # a pool is given to a second graph only while a first one lives


def _one_by_one(prefixes, max_new_tokens, samples, eos, choose):
    """Tokens (B * samples, n) picked by choose(logits, rows) from the logits of these rows, until n =
    max_new_tokens or all rows are known to have met eos. What follows a row's eos is to be cut."""
    B, device = len(prefixes.logits), prefixes.logits.device
    grid = torch.arange(B * samples, device=device).view(B, samples)  # the rows now in the batch, a line a prompt
    if samples > 1:
        prefixes.reorder(torch.arange(B, device=device).repeat_interleave(samples))
    tokens = torch.empty(B * samples, max_new_tokens, device=device, dtype=torch.long)
    ended = torch.zeros(B * samples, device=device, dtype=torch.bool)
    for n in range(max_new_tokens):
        rows = grid.flatten()
        chosen = choose(prefixes.logits, rows)
        tokens[rows, n] = chosen
        if n + 1 == max_new_tokens:
            break
        if eos is not None:
            ended[rows] |= chosen == eos
            if prefixes.is_check_due(n + 1):
                live = len(ended) - int(ended.sum())
                if live == 0:
                    return tokens[:, : n + 1]
                share = 1 if prefixes.must_record else prefixes.compact_at
                if live < len(rows) and live <= share * len(rows):
                    grid, kept = _compact(prefixes, grid, ended, share)
                    chosen = chosen[kept]
        prefixes.append(chosen)
    return tokens


def _compact(prefixes, grid, ended, share):
    """Let ended rows leave the batch -> the new grid and the places that its rows had in the batch. None leave if more
    than this share of the rows would stay.

    As long as it pays, every prompt that stays keeps equally many rows, which share what is kept of it, and some
    ended rows stay with them; then each row gets a copy of its own and is a prompt by itself.
    """
    B, N = grid.shape
    live = ~ended[grid]  # (B, N)
    prompts = live.any(1).nonzero().squeeze(1)
    width = int(live.sum(1).max())
    order = live[prompts].int().argsort(dim=1, descending=True, stable=True)[:, :width]  # live rows first
    kept = (prompts[:, None] * N + order).flatten()
    if N > 1 and prefixes.should_part(int(live.sum()), len(kept), len(prompts)):
        prompts, width = live.nonzero()[:, 0], 1
        kept = live.flatten().nonzero().squeeze(1)
    if len(kept) < grid.numel() and len(kept) <= share * grid.numel():
        prefixes.reorder(kept, prompts)
        return grid.flatten()[kept].view(-1, width), kept
    return grid, torch.arange(B * N, device=grid.device)


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
            step.masked_fill_(ended[..., None], -math.inf)
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
        n = tokens.shape[-1]
        if n == max_new_tokens or (eos is not None and prefixes.is_check_due(n) and ended.all()):
            return tokens[:, 0]
        prefixes.reorder((first + parent).flatten())
        prefixes.append(token.flatten())


def _lengths(tokens, eos):
    """How long each row of tokens (R, n) is up to and with its first eos: R whole numbers."""
    R, n = tokens.shape
    if eos is None:
        return [n] * R
    is_end = tokens == eos
    return torch.where(is_end.any(1), is_end.int().argmax(1) + 1, n).tolist()


def _pad(prompts, device, left, pad, name="prompts"):
    """(B, P) ids and how many of them are padding (B,) on each row's left or right (None: no padding)."""
    if isinstance(prompts, torch.Tensor):
        if prompts.dim() != 2 or 0 in prompts.shape:
            raise ValueError(f"{name} of shape {tuple(prompts.shape)}: must be (B, P), neither of them 0")
        _check_dtype(name, prompts)
        ids = prompts.to(device)
        padding = (ids == pad).flip(1).cumprod(1).sum(1) if pad is not None else torch.zeros(1)
        if (padding == ids.shape[1]).any():
            raise ValueError(f"{name} with a row of pad = {pad} alone: must have a token in each row")
        return ids, padding if padding.any() else None
    shapes = [tuple(prompt.shape) for prompt in prompts]
    if not shapes or any(len(shape) != 1 or shape[0] == 0 for shape in shapes):
        raise ValueError(f"{name} of shapes {shapes}: must be at least one 1-D tensor, none of them empty")
    for prompt in prompts:
        _check_dtype(name, prompt)
    P = max(map(len, prompts))
    counts = [P - len(prompt) for prompt in prompts]
    here = prompts[0].device  # one transfer for all rows: on a GPU that others use too, each waits for its turn
    ids = torch.stack([F.pad(row.to(here), (n, 0) if left else (0, n)) for row, n in zip(prompts, counts)])
    return ids.to(device), torch.tensor(counts, device=device) if any(counts) else None


def _check_dtype(name, ids):
    if ids.dtype != torch.long:
        raise ValueError(f"{name} of dtype {ids.dtype}: must be torch.int64 token ids")


def _check_range(name, ids, vocab_size):
    low, high = torch.stack(ids.aminmax()).tolist()
    _require(name, (low, high), 0 <= low and high < vocab_size, f"ids from 0 to {vocab_size - 1}")


def _require(name, value, holds, allowed):
    if not holds:
        raise ValueError(f"{name} = {value!r}: must be {allowed}")


def _is_whole(value, low, high=math.inf):
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_ends(model, bos, pad):
    if isinstance(model, Seq2Seq):
        last = model.config.vocab_size - 1
        _require("bos", bos, _is_whole(bos, 0, last), f"a token id from 0 to {last}")
        _require("pad", pad, pad is None or _is_whole(pad, 0, last), f"None or a token id from 0 to {last}")
    else:
        for name, value in (("bos", bos), ("pad", pad)):
            _require(name, value, value is None, "None: only a Seq2Seq uses it")


def _check(model, prompts, n, method, temperature, top_k, top_p, beams, samples, eos, generator, length_penalty):
    config, P = model.config, prompts.shape[1]
    V, limit = config.vocab_size, config.max_positions
    _check_range("prompts", prompts, V)
    _require("prompts", f"{P} tokens", P <= limit, f"at most {limit} tokens long")
    room, fits = limit - P + 1, f"(max_positions = {limit}, longest prompt {P})"
    if isinstance(model, Seq2Seq):
        room, fits = limit, f"(max_positions = {limit})"
    _require("max_new_tokens", n, _is_whole(n, 1, room), f"a whole number from 1 to {room} {fits}")
    _require("method", method, method in METHODS, f"one of {', '.join(METHODS)}")
    _require("temperature", temperature, _is_number(temperature) and temperature > 0, "a finite number above 0")
    _require("top_k", top_k, top_k is None or _is_whole(top_k, 1, V), f"None or a whole number from 1 to {V}")
    _require("top_p", top_p, top_p is None or (_is_number(top_p) and 0 < top_p <= 1), "None or above 0, at most 1")
    _require("beams", beams, _is_whole(beams, 1), "a whole number of at least 1")
    _require("samples", samples, _is_whole(samples, 1), "a whole number of at least 1")
    _require("length_penalty", length_penalty, _is_number(length_penalty), "a finite number")
    _require("eos", eos, eos is None or _is_whole(eos, 0, V - 1), f"None or a token id from 0 to {V - 1}")
    device = model.lm_head.device
    same = generator is None or generator.device.type == device.type
    _require("generator", generator and str(generator.device), same, f"None or on the model's device, {device}")
    for name, value, default, used_by in (
        ("temperature", temperature, 1.0, "sample"),
        ("top_k", top_k, None, "sample"),
        ("top_p", top_p, None, "sample"),
        ("samples", samples, 1, "sample"),
        ("beams", beams, 1, "beam"),
        ("length_penalty", length_penalty, 0.0, "beam"),
    ):
        ignored = value != default and method != used_by
        _require(name, value, not ignored, f"{default} with method {method!r}: only {used_by!r} uses it")
