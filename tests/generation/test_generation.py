"""Generation: the cache against recomputation, sampling against softmax, beams against enumeration."""

import itertools
import math
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from generation import tiny
from generation.tiny import V, lists, prompts_of
from generation.tiny import decoder as make
from paperwalk.generation import arguments, choose_sample, generate, prefixes, sampling, truncate

METHODS = {name: options for name, options in tiny.METHODS.items() if name != "samples"}


@pytest.mark.parametrize("options", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("lengths", [(5,), (6,) * 7, (3, 9, 1, 4, 9, 2, 7)], ids=["one", "seven", "ragged"])
@pytest.mark.parametrize("eos", [None, 4])
@pytest.mark.parametrize("recorded", [False, True], ids=["growing", "fixed shapes"])
def test_cache_equals_recomputation(options, lengths, eos, recorded, monkeypatch):
    if recorded:  # all of the GPU's path but the recording itself
        monkeypatch.setattr(prefixes, "RECORDED_ON", ("cpu",))
        monkeypatch.setattr(prefixes, "RECORDED_CACHE_STEP", 5)  # it grows twice
    model, prompts = make(), prompts_of(lengths)

    def run(use_cache):
        generator = torch.Generator().manual_seed(5)
        return lists(generate(model, prompts, 12, eos=eos, generator=generator, use_cache=use_cache, **options))

    cached = run(True)
    assert cached == run(False)
    assert len(cached) == len(lengths)
    for row in cached:
        if eos is None:
            assert len(row) == 12
        else:
            assert eos not in row[:-1] and (len(row) == 12 or row[-1] == eos)


class Calls(TorchDispatchMode):
    """What `look` returns at each call of these operators, asked before they run."""

    def __init__(self, operators, look):
        super().__init__()
        self.operators, self.look, self.seen = operators, look, []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        if operator in self.operators:
            self.seen.append(self.look())
        return operator(*args, **(kwargs or {}))


def test_a_cache_lets_go_of_its_old_keys_before_it_copies_its_values():
    cache = make().new_cache(4, 6)
    for change in (lambda: cache.grow(3), lambda: cache.reorder(torch.tensor([2, 0]))):
        old = weakref.ref(cache.keys)
        with Calls(
            [torch.ops.aten.constant_pad_nd.default, torch.ops.aten.index.Tensor], lambda: old() is None
        ) as calls:
            change()
        assert calls.seen == [False, True]


def test_a_cache_can_be_reordered_within_its_storage():
    model, ids, rows = make(), torch.stack(prompts_of((5, 5, 5))), torch.tensor([2, 0, 2])
    moved, copied = model.new_cache(3, 8), model.new_cache(3, 8)
    with torch.no_grad():
        for cache in (moved, copied):
            model(ids, cache)
        before = moved.keys.data_ptr(), moved.values.data_ptr()
        moved.reorder(rows, in_place=True)
        copied.reorder(rows)
    assert (moved.keys.data_ptr(), moved.values.data_ptr()) == before
    assert torch.equal(moved.keys, copied.keys) and torch.equal(moved.values, copied.values)


def test_rows_are_cut_after_their_first_end():
    tokens = torch.tensor([[5, 4, 4, 1], [4, 1, 4, 1], [1, 2, 3, 5], [1, 2, 3, 4]])
    assert sampling.lengths_of(tokens, 4) == [2, 1, 4, 4]
    assert sampling.lengths_of(tokens, None) == [4] * 4


def make_endless(eos):
    """A model that never says eos: a part of its states is always 1, and counts against it."""
    model = make()
    with torch.no_grad():
        model.untied_head[:, -1] = 0
        model.untied_head[eos, -1] = -100
    for name in ("hidden", "hidden_next"):
        read = getattr(model, name)
        setattr(model, name, lambda *given, read=read: F.pad(read(*given)[..., :-1], (0, 1), value=1.0))
    return model


@pytest.mark.parametrize("recorded", [False, True], ids=["growing", "fixed shapes"])
@pytest.mark.parametrize("options", METHODS.values(), ids=METHODS)
def test_the_device_is_not_waited_for_at_every_row_or_token(options, recorded, monkeypatch):
    """Recorded, 27 tokens are checked after 8, 16 and 24."""
    if recorded:
        monkeypatch.setattr(prefixes, "RECORDED_ON", ("cpu",))
    waits = []
    for name in ("__bool__", "__int__", "item", "tolist", "nonzero"):
        method = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda x, method=method: (waits.append(1), method(x))[1])

    def waits_for(tokens, rows, eos):
        waits.clear()
        generate(make_endless(4), prompts_of((5, 7) * rows), tokens, eos=eos, **options)
        return len(waits)

    once = waits_for(1, 1, None)
    assert waits_for(27, 1, None) == waits_for(27, 40, None) == once > 0
    assert waits_for(27, 1, 4) == waits_for(27, 40, 4) == once + 1 + (3 if recorded else 26)  # 1: the rows' lengths


@pytest.mark.parametrize("method", ["greedy", "beam"])
def test_a_row_does_not_depend_on_its_batch(method):
    model, prompts = make(), prompts_of((3, 9, 1, 4))
    options = dict(method=method, beams=3 if method == "beam" else 1, eos=4)
    alone = [generate(model, prompt[None], 12, **options)[0] for prompt in prompts]
    together = generate(model, prompts, 12, **options)
    assert lists(together) == lists(alone)
    assert len({len(row) for row in together}) > 1, "rows must end at different steps for this test to bite"


def test_greedy_takes_the_argmax_of_the_plain_forward_pass():
    model, ids = make(), torch.stack(prompts_of((5, 5)))
    rows = generate(model, ids, 10)
    for _ in range(10):
        ids = torch.cat((ids, model(ids)[:, -1].argmax(-1, keepdim=True)), 1)
    assert lists(rows) == ids[:, 5:].tolist()


def test_tensor_and_list_prompts_agree_and_are_left_alone():
    model, ids = make(), torch.stack(prompts_of((5, 5, 5)))
    before = ids.clone()
    assert lists(generate(model, ids, 6)) == lists(generate(model, list(ids), 6))
    assert torch.equal(ids, before)
    assert all(row.dtype == torch.long and row.dim() == 1 for row in generate(model, ids, 2))


def test_eos_at_the_first_step_and_room_to_the_last_position():
    model, prompt = make(max_positions=9), prompts_of((5,))
    whole = generate(model, prompt, 5)[0].tolist()
    assert len(whole) == 5
    for options in (dict(), dict(method="beam", beams=1)):
        assert generate(model, prompt, 5, eos=whole[0], **options)[0].tolist() == whole[:1]
    with pytest.raises(ValueError, match=r"max_new_tokens = 6: must be a whole number from 1 to 5 \(max_pos"):
        generate(model, prompt, 6)


@pytest.mark.parametrize("seed", range(3))
def test_one_beam_is_greedy(seed):
    model, prompts = make(seed), prompts_of((2, 8, 5), seed)
    for eos in (None, 3):
        assert lists(generate(model, prompts, 9, "beam", beams=1, eos=eos)) == lists(
            generate(model, prompts, 9, eos=eos)
        )


def enumerate_best(model, prompt, steps, eos, penalty):
    """The best continuation among all: those that end with eos, and those of full length without one."""
    best = (-math.inf, None)
    V = model.config.vocab_size
    for length in range(1, steps + 1):
        for tail in itertools.product(range(V), repeat=length):
            if eos is None:
                allowed = length == steps
            else:
                allowed = eos not in tail[:-1] and (tail[-1] == eos or length == steps)
            if allowed:
                ids = torch.cat((prompt, torch.tensor(tail)))[None]
                logp = model(ids)[0, len(prompt) - 1 : -1].log_softmax(-1)
                total = logp[range(length), tail].sum().item() / length**penalty
                best = max(best, (total, list(tail)))
    return best[1]


@pytest.mark.parametrize("eos, penalty", [(None, 0.0), (1, 0.0), (1, 1.0)])
def test_enough_beams_find_the_best_of_all_continuations(eos, penalty):
    prompts = [torch.tensor([0, 2, 1]), torch.tensor([2])]
    greedy_misses = 0
    for seed in range(6):
        model = make(seed, vocab_size=3, scale=0.8)
        with torch.no_grad():
            best = [enumerate_best(model, prompt, 4, eos, penalty) for prompt in prompts]
        found = generate(model, prompts, 4, "beam", beams=81, eos=eos, length_penalty=penalty)
        assert lists(found) == best
        greedy_misses += lists(generate(model, prompts, 4, eos=eos)) != best
    assert greedy_misses > 0, "greedy found them all: the test cannot fail"


def test_few_beams_equal_a_plain_beam_search():
    """Beams as Python lists, one prompt, the whole prefix read at every step."""
    model = make(3, scale=0.8)
    for prompt in prompts_of((4, 7)):
        beams = [([], 0.0)]
        for _ in range(6):
            children = []
            for tail, score in beams:
                if tail and tail[-1] == 2:
                    children.append((tail, score))
                    continue
                with torch.no_grad():
                    ids = torch.cat((prompt, torch.tensor(tail, dtype=torch.long)))[None]
                    logp = model(ids)[0, -1].log_softmax(-1)
                children += [([*tail, v], score + logp[v].item()) for v in range(V)]
            beams = sorted(children, key=lambda beam: -beam[1])[:3]
        assert generate(model, prompt[None], 6, "beam", beams=3, eos=2)[0].tolist() == beams[0][0]


def test_sampled_frequencies_follow_the_softmax():
    model, prompt = make(), prompts_of((6,))[0]
    n, temperature = 20_000, 1.7
    with torch.no_grad():
        expected = (model(prompt[None])[0, -1] / temperature).softmax(-1)
    g = torch.Generator().manual_seed(0)
    rows = generate(model, prompt.expand(n, -1), 1, "sample", temperature=temperature, generator=g)
    counts = torch.cat(rows).bincount(minlength=V).double()
    chi_square = ((counts - n * expected) ** 2 / (n * expected)).sum().item()
    assert chi_square < 35  # 99.99 % quantile with 10 degrees of freedom
    flat = ((counts - n / V) ** 2 / (n / V)).sum().item()
    assert flat > 1000, "an almost uniform softmax proves nothing"


def test_a_seed_repeats_its_sample_and_another_differs():
    model, prompts = make(), prompts_of((4, 6))

    def run(seed):
        return lists(generate(model, prompts, 20, "sample", generator=torch.Generator().manual_seed(seed)))

    assert run(1) == run(1) != run(2)


def test_truncation():
    p = torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.97, 0.01, 0.01, 0.01]]).log()

    def kept(**options):
        return [row.isfinite().nonzero().flatten().tolist() for row in truncate(p, **options)]

    assert kept() == [[0, 1, 2, 3]] * 2
    assert kept(top_k=2)[0] == [1, 3]
    assert kept(top_k=1) == [[1], [0]]
    assert kept(top_p=0.65) == [[1, 3], [0]]
    assert kept(top_p=0.75) == [[1, 2, 3], [0]]
    assert kept(top_p=1e-6) == [[1], [0]]
    assert kept(top_p=1.0) == [[0, 1, 2, 3]] * 2
    # among the two that top_k leaves, the first holds 4/7 of the mass
    assert kept(top_k=2, top_p=0.55)[0] == [1]
    assert truncate(torch.zeros(1, 5), top_k=3).isfinite().sum() == 3  # ties too are cut to top_k
    untouched = p.clone()
    truncate(p, top_k=2, top_p=0.5)
    assert torch.equal(p, untouched)
    assert (choose_sample(p.expand(2, 4), temperature=5.0, top_k=1) == torch.tensor([1, 0])).all()


IDS = torch.zeros(2, 5, dtype=torch.long)


@pytest.mark.parametrize(
    "prompts, options, message",
    [
        (IDS, dict(max_new_tokens=0), "max_new_tokens = 0: must be a whole number from 1 to 36"),
        (IDS, dict(max_new_tokens=2.0), "max_new_tokens = 2.0: must be a whole number"),
        (IDS, dict(method="best"), "method = 'best': must be one of greedy, sample, beam"),
        (IDS, dict(method="sample", temperature=0), "temperature = 0: must be a finite number above 0"),
        (IDS, dict(method="sample", temperature=math.inf), "temperature = inf"),
        (IDS, dict(method="sample", top_k=0), "top_k = 0: must be None or a whole number from 1 to 11"),
        (IDS, dict(method="sample", top_k=12), "top_k = 12"),
        (IDS, dict(method="sample", top_p=0.0), "top_p = 0.0: must be None or above 0, at most 1"),
        (IDS, dict(method="sample", top_p=1.1), "top_p = 1.1"),
        (IDS, dict(method="beam", beams=0), "beams = 0: must be a whole number of at least 1"),
        (IDS, dict(method="beam", length_penalty=math.nan), "length_penalty = nan: must be a finite number"),
        (IDS, dict(eos=11), "eos = 11: must be None or a token id from 0 to 10"),
        (IDS, dict(temperature=0.5), "temperature = 0.5: must be 1.0 with method 'greedy': only 'sample'"),
        (IDS, dict(method="beam", top_k=3), "top_k = 3: must be None with method 'beam'"),
        (IDS, dict(method="sample", beams=2), "beams = 2: must be 1 with method 'sample'"),
        (IDS + 11, {}, r"prompts = \(11, 11\): must be ids from 0 to 10"),
        (IDS - 1, {}, r"prompts = \(-1, -1\)"),
        (IDS.float(), {}, "prompts of dtype torch.float32: must be torch.int64"),
        (IDS[0], {}, r"prompts of shape \(5,\): must be \(B, P\)"),
        (IDS[:, :0], {}, r"prompts of shape \(2, 0\)"),
        (IDS[:0], {}, r"prompts of shape \(0, 5\)"),
        ([], {}, "at least one 1-D tensor"),
        ([IDS[0], IDS[0, :0]], {}, r"prompts of shapes \[\(5,\), \(0,\)\]"),
        (torch.zeros(1, 41, dtype=torch.long), {}, "prompts = '41 tokens': must be at most 40 tokens long"),
    ],
)
def test_bad_arguments_are_named(prompts, options, message):
    with pytest.raises(ValueError, match=message):
        generate(make(), prompts, **{"max_new_tokens": 3, **options})


def test_prompts_go_to_the_device_in_one_transfer():
    moved = []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            moved.append(operation) if operation is torch.ops.aten._to_copy.default else None
            return operation(*args, **(kwargs or {}))

    with Count():
        ids, _ = arguments.padded([torch.arange(1 + n % 5) for n in range(100)], torch.device("meta"), True, None)
    assert ids.shape == (100, 5) and len(moved) <= 2  # the ids and the counts
