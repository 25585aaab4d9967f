"""Growing rows of tokens and the logits that follow them: the only part of generation that knows the model.

On a GPU a step is recorded once as a CUDA graph and replayed (`RecordedStep`), until rows leave or the cache grows.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F

from paperwalk.generation.arguments import Model
from paperwalk.models.kv_cache import KVCache
from paperwalk.models.seq2seq import Memory, Seq2Seq

COMPACT_AT = 0.8  # ended rows leave the batch when this share of it, or less, is left
SHARE_UNTIL = 0.6  # a prompt's rows go separate ways when this share of those kept together is live, or less
CACHE_STEP = 16  # least tokens by which the cache grows: one with little room to spare is read and reordered faster
RECORDED_ON = ("cuda",)  # devices where a step has fixed shapes; what changes them costs a recording, so it is rarer:
RECORDED_COMPACT_AT, RECORDED_CACHE_STEP = 0.5, 256
RECORDED_CHECK_STEP = 8  # tokens after which it is asked there which rows have ended: the answer is waited for


class Prefixes:
    """R growing rows of tokens, a prompt's together; `logits` (R, V) are those of the token that comes next.

    At first there is one row a prompt: the prompt itself for a `Decoder`, bos for a `Seq2Seq`.
    """

    def __init__(
        self,
        model: Model,
        prompts: torch.Tensor,
        padding: torch.Tensor | None,
        bos: int | None,
        use_cache: bool,
        max_new_tokens: int,
    ):
        self.model: Any = model  # a Seq2Seq where there is a memory
        self.memory: Memory | None = None
        self.padding = padding
        self.ids = prompts
        if isinstance(model, Seq2Seq):
            self.memory, self.padding = model.encode(prompts, padding), None
            self.ids = prompts.new_full((len(prompts), 1), cast(int, bos))
        R, P = self.ids.shape
        self.recorded = use_cache and prompts.device.type in RECORDED_ON
        self.step: RecordedStep | None = None
        self.last_graph: torch.cuda.CUDAGraph | None = None
        self.room = RECORDED_CACHE_STEP if self.recorded else CACHE_STEP
        self.compact_at = RECORDED_COMPACT_AT if self.recorded else COMPACT_AT
        self.longest = P + max_new_tokens - 1  # tokens that are ever read: the last one is not
        self.cache = model.new_cache(R, min(P + self.room, self.longest)) if use_cache else None
        self._read(self.ids)

    @property
    def must_record(self) -> bool:
        """Whether the next step has to be recorded because the cache is full: rows then leave at little cost."""
        return self.recorded and self.cache is not None and self.cache.length == self.cache.capacity

    def is_check_due(self, n: int) -> bool:
        """Whether to ask, after n tokens, which rows have ended."""
        return not self.recorded or n % RECORDED_CHECK_STEP == 0 or self.must_record

    def should_part(self, live: int, kept: int, prompts: int) -> bool:
        """Whether `live` rows are to have a copy each of what is kept of a prompt, and not share it as `kept` rows,
        equally many for each of the `prompts`. Recorded steps read all the tokens that are kept: fewer are better."""
        if not self.recorded or self.cache is None:
            return live <= SHARE_UNTIL * kept
        S = 0 if self.memory is None else self.memory.keys[0].shape[2]
        return live * (S + self.cache.capacity) < prompts * S + kept * self.cache.capacity

    def append(self, tokens: torch.Tensor) -> None:
        """Add one token (R,) to each row."""
        if self.cache is not None:
            if self.cache.length == self.cache.capacity:
                more = max(self.room, self.cache.capacity // 4)
                self._drop_step()
                self.cache.grow(min(more, self.longest - self.cache.capacity))
            if self.recorded:
                if self.step is None:
                    self.step = RecordedStep(self.model, self.memory, self.cache, self.padding, self.last_graph)
                self.logits = self.step(tokens)
            else:
                self._read(tokens[:, None])
        else:
            self.ids = torch.cat((self.ids, tokens[:, None]), 1)
            self._read(self.ids)

    def reorder(self, rows: torch.Tensor, prompts: torch.Tensor | None = None) -> None:
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
            self.last_graph, self.step = self.step.graph, None

    def _read(self, ids):
        if self.memory is None:
            hidden = self.model.hidden(ids, self.cache, self.padding)
        else:
            hidden = self.model.hidden(ids, self.memory, self.cache)
        self.logits = F.linear(hidden[:, -1], self.model.lm_head)


class RecordedStep:
    """Reads one more token of each row: on a GPU recorded at the first call, and replayed.

    It holds the addresses of the cache, memory and padding: whoever puts others in their place makes a new step.
    last_graph: an earlier recording that is not replayed any more, whose memory this one may use.
    """

    def __init__(
        self,
        model: Model,
        memory: Memory | None,
        cache: KVCache,
        padding: torch.Tensor | None,
        last_graph: torch.cuda.CUDAGraph | None = None,
    ):
        self.model: Any = model
        self.memory, self.cache, self.padding = memory, cache, padding
        self.ids = cache.position.new_zeros(cache.batch, 1)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.last_graph = last_graph
        cache.position.fill_(cache.length)

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """The logits (R, V) of what follows the tokens (R,); the next call writes over them."""
        self.ids.copy_(tokens[:, None])
        if self.graph is None and self.ids.is_cuda:
            self._record()
        self.graph.replay() if self.graph else self._run()
        self.cache.length += 1
        return self.logits

    def _run(self):
        rest = (self.cache, self.padding) if self.memory is None else (self.memory, self.cache)
        self.logits = F.linear(self.model.hidden_next(self.ids, *rest)[:, -1], self.model.lm_head)
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
        with torch.cuda.graph(self.graph, pool=self.last_graph.pool() if self.last_graph else None):
            self._run()
        self.last_graph = None  # a pool is given to a second graph only while a first one lives
