"""Language models behind an OpenAI-compatible address: the packaged model on this machine, or any other.

One way to ask both: `local` serves SmolLM2-135M-Instruct with llama.cpp on the loopback interface, `Endpoint` asks an
address. Answers are kept under a hash of address, question and this module, and never asked for again; one that hangs,
fails or answers with garbage gives a `Reply` that says so, and is asked again in the next run.
"""

import hashlib
import json
import os
import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from paperwalk.data import sources
from paperwalk.data.fetch import made_from
from paperwalk.runs import progress, write_atomically

LOCAL = "smollm2"


@dataclass(frozen=True)
class Reply:
    """What a model said: `text`; `confidence`, mean log-probability of its tokens in nats (NaN where the address gives
    none); `error`, why there is no answer, or ""."""

    text: str
    confidence: float = float("nan")
    error: str = ""


class Endpoint:
    """A chat model at an address.

    model: the name that the address knows it by. base_url: None for the environment's OPENAI_BASE_URL. The key comes
    from the environment's OPENAI_API_KEY alone, and is neither printed nor stored. timeout: seconds for one try;
    retries: further tries after a failure. cache: folder of the answers, where LOCAL is the same at every address, but
    another with each pin of its package and version of xllamacpp.
    """

    def __init__(self, model: str, cache: Path, base_url: str | None = None, timeout: float = 60, retries: int = 2):
        if timeout <= 0:
            raise ValueError(f"timeout = {timeout}: must be above 0 seconds")
        if base_url is None and not {"OPENAI_BASE_URL", "OPENAI_API_KEY"} & set(os.environ):
            raise ValueError(f"generator = {model!r}: must be {LOCAL!r}, or set OPENAI_BASE_URL and OPENAI_API_KEY")
        import openai

        if base_url is None:
            sources.server(model)
        self.model, self.cache = model, Path(cache)
        self.cache.mkdir(parents=True, exist_ok=True)
        self._key = "none" if base_url else os.environ.get("OPENAI_API_KEY", "none")
        self._client = openai.OpenAI(api_key=self._key, base_url=base_url, timeout=timeout, max_retries=retries)
        self._answering = _packaged() if model == LOCAL else [str(self._client.base_url), made_from([], __file__)]

    def file(self, messages: list[dict], **options: Any) -> Path:
        """Where this address's answer to these messages under these options is kept."""
        asked = json.dumps([self._answering, self.model, messages, options], sort_keys=True)
        return self.cache / f"{hashlib.sha256(asked.encode()).hexdigest()[:24]}.json"

    def ask(self, messages: list[dict], **options: Any) -> Reply:
        """The model's reply to chat messages. options: those of the address, such as max_tokens, temperature, grammar.

        Never raises for what the address does: a Reply with `error` stands for "no answer".
        """
        if not messages[-1]["content"].strip():
            return Reply("", error="empty question")
        file = self.file(messages, **options)
        if file.exists():
            return Reply(**json.loads(file.read_text(encoding="utf-8")))
        reply = self._ask(messages, options)
        if not reply.error:
            write_atomically(file, json.dumps(asdict(reply)))
        return reply

    def _ask(self, messages, options):
        import openai

        known = {"max_tokens", "temperature", "seed", "top_p"}
        body = {name: value for name, value in options.items() if name not in known}
        plain = {name: value for name, value in options.items() if name in known}
        try:
            given = self._client.chat.completions.create(
                model=self.model, messages=messages, logprobs=True, extra_body=body, **plain
            )
            choice = given.choices[0]
            text = choice.message.content
            if not isinstance(text, str):
                return Reply("", error="garbage: an answer without text")
            tokens = (choice.logprobs.content if choice.logprobs else None) or []
            scores = [token.logprob for token in tokens]
            return Reply(text.strip(), sum(scores) / len(scores) if scores else float("nan"))
        except openai.APITimeoutError:
            return Reply("", error="time-out")
        except openai.APIStatusError as error:
            return Reply("", error=f"HTTP {error.status_code}")
        except openai.APIError as error:  # no connection, or not the JSON that was agreed on
            return Reply("", error=type(error).__name__)
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            return Reply("", error=f"garbage: {type(error).__name__}")


def _packaged():
    """What the packaged model's answers follow from, but for the question."""
    from paperwalk.models.pretrained import PACKAGE

    return [metadata.version("xllamacpp"), made_from([PACKAGE], __file__)]


@contextmanager
def local(servers: int = 1, context: int = 2560) -> Iterator[list[str]]:
    """Base addresses, on this machine, of llama.cpp servers with the packaged model, one thread each."""
    import xllamacpp

    from paperwalk.models.pretrained import unpacked

    file, running = unpacked(), []
    for _ in range(servers):
        asked = xllamacpp.CommonParams()
        asked.model.path = str(file)
        asked.n_ctx, asked.n_parallel, asked.n_gpu_layers = context, 1, 0
        asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = 1
        asked.hostnames, asked.port, asked.verbosity = ["127.0.0.1"], 0, 0
        running.append(xllamacpp.Server(asked))
    try:
        yield [f"{server.listening_address}/v1" for server in running]
    finally:
        running.clear()


def ask_all(
    calls: list[tuple[list[dict], dict]], model: str, cache: Path, workers: int, timeout: float, label: str
) -> list[Reply]:
    """The replies to (messages, options), in their order, `workers` at a time, with progress under the label.

    model: LOCAL for the packaged one, on a server of its own for each worker, or the name of one at the environment's
    address. cache, timeout (seconds) and errors are those of `Endpoint`.
    """
    free: queue.SimpleQueue[Endpoint] = queue.SimpleQueue()

    def ask(call):
        messages, options = call
        endpoint = free.get()
        try:
            return endpoint.ask(messages, **options)
        finally:
            free.put(endpoint)

    served = local(workers, context=4096) if model == LOCAL else nullcontext([None] * workers)
    with served as addresses, ThreadPoolExecutor(workers) as pool:
        for address in addresses:
            free.put(Endpoint(model, cache, address, timeout=timeout))
        return list(progress(pool.map(ask, calls), len(calls), label))
