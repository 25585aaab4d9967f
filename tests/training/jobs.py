"""What the workers of the tests run: functions of a module that their processes can import."""

import os
import resource
import signal
import warnings
from pathlib import Path

import torch
from torch import nn

from paperwalk.models.decoder import Decoder, DecoderConfig
from paperwalk.models.fam import FAMConfig, TransformerFAM
from paperwalk.models.seq2seq import Seq2Seq, Seq2SeqConfig
from paperwalk.training import TrainConfig, TrainingError, distributed, train
from training.tiny import Tiny, V, loss_fn, micro_batches, noisy_loss


class Blocks(Tiny):
    """Tiny with two more matrices, which are gathered by themselves when it is sharded."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        g = torch.Generator().manual_seed(7)
        self.blocks = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))
        with torch.no_grad():
            for p in self.blocks.parameters():
                p.copy_(torch.randn(p.shape, generator=g) * 0.3)

    def forward(self, x):
        if self.training:
            self.seen += x.numel()
        x = self.embed(x)
        for block in self.blocks:
            x = x + block(x).tanh()
        x = nn.functional.dropout(self.mix(self.norm(x)), self.dropout, self.training)
        return self.head(x)


def four(step):
    """Four unequal micro-batches with unequal shares of kept tokens."""
    batches = micro_batches(step, sizes=(2, 9, 4, 6))
    for i, (_, y) in enumerate(batches):
        y[torch.arange(len(y)) % (i + 1) > 0] = -100
    return batches


def three(step):
    """One worker of two is a micro-batch short; the last keeps nothing."""
    batches = four(step)[:3]
    batches[2][1].fill_(-100)
    return batches


def single(step):
    """One worker of two has none."""
    return four(step)[1:2]


class Crash(Exception):
    pass


def run(path=None, sharded=False, dtype=torch.float64, batches=four, noisy=False, stop=None, init=3, every=4):
    """Train `Blocks` for 12 steps -> (weights as arrays, log, first step taken); `stop`: crash before that step."""
    model = Blocks(seed=init, dropout=0.3 if noisy else 0.0).to(dtype)
    if sharded:
        distributed.shard(model, model.blocks)
    steps = []

    def watched(step):
        if step == stop:
            raise Crash
        steps.append(step)
        return batches(step)

    config = TrainConfig(12, 0.02, warmup=3, clip=0.7, checkpoint_every=every)
    evaluate = lambda model: {"logit": model(torch.arange(11)).double().square().mean()}
    loss = noisy_loss if noisy else loss_fn
    log = train(model, watched, loss, config, path, evaluate, evaluate_every=5, progress=False)
    weights = {name: distributed.full_tensor(p).detach().numpy().copy() for name, p in model.named_parameters()}
    return weights, log, steps[:1]


def run_and_warn(*args):
    """What `run` returns, and the warning that it gave."""
    with warnings.catch_warnings(record=True) as said:
        result = run(*args)
    return result, " ".join(str(warning.message) for warning in said)


def run_model(kind, sharded):
    """Train one of the book's models on random tokens -> what `run` returns."""
    torch.manual_seed(1)
    if kind == "decoder":
        model = Decoder(DecoderConfig(V, 8, 2, 2, 1, 12, 16)).double()
        parts, forward = model.blocks, lambda model, ids: model(ids)
    elif kind == "fam":
        model = TransformerFAM(FAMConfig(V, 8, 2, 2, 12, 4, 1, 2)).double()
        parts, forward = (), lambda model, ids: model(ids)[0]  # its blocks are also used outside of their forward
    else:
        model = Seq2Seq(Seq2SeqConfig(V, 8, 2, 2, 12, 16)).double()
        parts = [*model.encoder, *(part for block in model.decoder for part in (block.attention, block.feed_forward))]
        forward = lambda model, ids: model(ids.flip(1), ids)
    if sharded:
        distributed.shard(model, parts)

    def batches(step):
        g = torch.Generator().manual_seed(step)
        return [torch.randint(V, (rows, 9), generator=g) for rows in (2, 1, 3)]

    def loss(model, ids):
        logits = forward(model, ids)[:, :-1]
        return nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum"), ids.numel()

    log = train(model, batches, loss, TrainConfig(5, 0.02), progress=False)
    return {name: distributed.full_tensor(p).detach().numpy().copy() for name, p in model.named_parameters()}, log, []


def stopped(*args):
    try:
        run(*args)
    except Crash:
        return True


class Branch(Tiny):
    """A matrix that only long micro-batches use."""

    def __init__(self):
        super().__init__()
        self.extra = nn.Linear(6, 6, bias=False)
        with torch.no_grad():
            self.extra.weight.copy_(torch.eye(6))

    def forward(self, x):
        x = self.embed(x)
        return self.head(self.extra(x) if len(x) > 5 else self.mix(x))


def run_branch():
    torch.manual_seed(0)
    model = Branch().double()
    log = train(model, four, loss_fn, TrainConfig(6, 0.02), progress=False)
    return {name: p.detach().numpy().copy() for name, p in model.named_parameters()}, log, []


def draw(common):
    return [distributed.worker_seed(common), distributed.rank(), distributed.world_size()]


def one_bad_micro_batch(step):
    batches = [(x, y, 1.0) for x, y in four(step)]
    return [*batches[:3], (*batches[3][:2], float("nan"))] if step == 2 else batches


def run_into_nan():
    scaled = lambda model, batch: [x * batch[2] if i == 0 else x for i, x in enumerate(loss_fn(model, batch[:2]))]
    train(Tiny(), one_bad_micro_batch, scaled, TrainConfig(5, 0.01), progress=False)


def run_constant_loss():
    train(Tiny(), four, lambda model, batch: (torch.ones(()), 1), TrainConfig(5, 0.01), progress=False)


def shard_unequal():
    distributed.shard(Tiny(seed=distributed.rank()))


def run_and_be_killed(folder):
    """`run` in `folder`, whose worker 1 is killed before step 7 the first time; notes each worker's steps there."""
    torch.set_num_threads(1)
    rank, killed = distributed.rank(), folder / "killed"

    def batches(step):
        if step == 7 and rank == 1 and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        with open(folder / f"rank{rank}-step{step}", "a") as file:
            file.write("taken\n")
        return four(step)

    run(folder / "run", True, torch.float32, batches, True)
    return lambda: "what cannot be pickled stays with the worker", killed.open()


def run_announced(path, pipe):
    """60 steps, a checkpoint every 7; tells of every step and every move of a file, and waits to be let go on."""
    warnings.filterwarnings("ignore", ".*missing; going on from the checkpoint before it")
    replace = os.replace

    def wait(event):
        pipe.send(event)
        pipe.recv()

    def batches(step):
        wait(f"step {step}")
        return micro_batches(step)

    def announced_replace(*args):
        wait(f"replace {args[1].name}")
        replace(*args)

    os.replace = announced_replace
    config = TrainConfig(steps=60, lr=0.02, warmup=5, checkpoint_every=7)
    train(Tiny(dropout=0.3), batches, noisy_loss, config, path, progress=False)


def run_often_saved(path, steps):
    """Train on generators that a resume must put back, with a checkpoint every third step; counts steps in a file."""
    warnings.filterwarnings("ignore", ".*missing; going on from the checkpoint before it")  # killed between two moves

    def batches(step):
        with open(path.with_name("steps"), "ab") as file:
            file.write(b".")
        return four(step)

    config = TrainConfig(steps, 0.02, warmup=5, checkpoint_every=3)
    train(Blocks(dropout=0.3), batches, noisy_loss, config, path, progress=False)


def run_in_little_memory(path, spare):
    """Train with `spare` bytes of address space above what is in use; what went wrong is written beside `path`."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + spare,) * 2)
    try:
        run_with_a_large_step(path)
    except TrainingError as error:
        path.with_name("said").write_text(str(error))


def run_with_a_large_step(path):
    """12 steps, a checkpoint every third; the micro-batches of step 7 take some hundred megabytes."""
    sizes = lambda step: (1_000_000, 10) if step == 7 else (6, 10)
    config = TrainConfig(12, 0.02, checkpoint_every=3)
    return train(Tiny(), lambda step: micro_batches(step, sizes(step)), loss_fn, config, path, progress=False)
