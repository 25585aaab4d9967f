"""Generation on a GPU: recorded steps against whole prefixes read anew; how often a step is recorded; memory."""

import pytest
import torch

from generation import tiny
from generation.tiny import BOS, EOS, lists
from paperwalk.generation import generate, prefixes
from paperwalk.models.kv_cache import KVCache

pytestmark = pytest.mark.gpu

MOST = 30
METHODS = tiny.METHODS | {"samples": dict(method="sample", samples=6)}
KINDS = ("decoder", "seq2seq")


def make(kind, dtype=torch.float64):
    """A model and its ends; in float64 its continuations do not tie."""
    model, ends = (tiny.decoder(), {}) if kind == "decoder" else (tiny.seq2seq(), dict(bos=BOS))
    return model.to("cuda", dtype), ends


def prompts_of(lengths=(3, 9, 1, 4, 9, 2, 7, 5, 5)):
    return [row.cuda() for row in tiny.prompts_of(lengths)]


def draws(seed=5):
    return tiny.draws(seed, "cuda")


@pytest.fixture
def recordings(monkeypatch):
    """The memory pool of each graph that is recorded; the cache grows by 10 tokens at least."""
    pools, graph = [], torch.cuda.graph
    monkeypatch.setattr(torch.cuda, "graph", lambda *given, pool=None: pools.append(pool) or graph(*given, pool=pool))
    monkeypatch.setattr(prefixes, "RECORDED_CACHE_STEP", 10)
    return pools


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("options", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("eos", [None, EOS])
def test_recorded_steps_give_the_tokens_of_whole_prefixes(kind, dtype, options, eos, recordings):
    """And leave the generator where they do. In float32 a near tie could fall otherwise: the seed has none."""
    (model, ends), prompts = make(kind, dtype), prompts_of()

    def run(use_cache):
        generator, found = draws(), []
        for most in (MOST, 5):
            given = dict(eos=eos, generator=generator, use_cache=use_cache, **ends, **options)
            found += lists(generate(model, prompts, most, **given))
        return found, torch.rand(2, device="cuda", generator=generator).tolist()

    expected = run(False)
    assert not recordings
    assert run(True) == expected
    assert recordings
    assert eos is None or len(set(map(len, expected[0]))) > 2, "rows must end at different steps for this test to bite"


@pytest.mark.parametrize("kind", KINDS)
def test_the_global_generator_is_left_where_whole_prefixes_leave_it(kind, recordings):
    (model, ends), prompts = make(kind), prompts_of()

    def run(use_cache):
        torch.manual_seed(3)
        found = lists(generate(model, prompts, MOST, "sample", eos=EOS, use_cache=use_cache, **ends))
        return found, torch.rand(2, device="cuda").tolist()

    assert run(True) == run(False)
    assert recordings


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("eos", [None, EOS])
def test_a_beam_search_is_recorded_once_and_whenever_the_cache_grows(kind, eos, recordings, monkeypatch):
    grown, grow = [], KVCache.grow
    monkeypatch.setattr(KVCache, "grow", lambda cache, room: grown.append(room) or grow(cache, room))
    model, ends = make(kind)
    generate(model, prompts_of(), MOST, "beam", beams=3, eos=eos, **ends)
    assert grown == [10, 9][: len(grown)] and (eos is not None or len(grown) == 2)
    assert len(recordings) == 1 + len(grown)
    assert recordings[0] is None and len(set(recordings[1:])) <= 1, "all recordings of a call share one pool"


@pytest.mark.parametrize("options", METHODS.values(), ids=METHODS)
def test_no_memory_is_kept(options, recordings):
    model, ends = make("seq2seq")

    def left():
        generate(model, prompts_of(), MOST, eos=EOS, generator=draws(), **ends, **options)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()

    left()  # libraries take their work space at their first calls
    first = left()
    for _ in range(3):
        assert left() <= first
