"""One training on several processes: torch.distributed underneath, started by Ray Train or by torchrun.

`paperwalk.training.train` is the same loop on one process and on many. Inside a process group its workers share the
micro-batches of each step. They hold a copy of the model each (DDP), or, once `shard` has been called on it, a part
each (FSDP2). `launch` starts such workers from a notebook.
"""

import hashlib
import math
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from paperwalk.checks import is_number, require, require_whole

Value = TypeVar("Value")


class DistributedError(RuntimeError):
    """The workers could not be started, or did not come to their end."""


# --- starting workers -----------------------------------------------------------------------------


def launch(
    train_function: Callable[[], object],
    workers: int,
    gpus_per_worker: float = 0,
    cpus_per_worker: float = 1,
    retries: int = 3,
    storage: Path | str | None = None,
) -> None:
    """Run `train_function()` on `workers` processes of a Ray cluster, joined in one torch.distributed group.

        def trained():
            model = new_model()
            distributed.shard(model, model.blocks)  # without this line each worker holds a copy
            return model, train(model, batches, loss_fn, config, checkpoint)

        distributed.launch(trained, workers=8, gpus_per_worker=1)
        model, log = trained()  # here: reads the finished run

    Which cluster: that of `ray.init` or RAY_ADDRESS, else one that is started on this machine. When a worker or its
    node dies, all are started again, up to `retries` times, and `train` goes on from its checkpoint. The checkpoint,
    named by its absolute path, and `storage` (a folder for Ray's own notes; default: ~/ray_results) must lie on a
    file system that every node sees.

    Raises ValueError for a number that makes no sense, DistributedError without Ray or when the workers
    have failed more than `retries` times.
    """
    require_whole(1, workers=workers)
    require_whole(0, retries=retries)
    for name, amount in (("gpus_per_worker", gpus_per_worker), ("cpus_per_worker", cpus_per_worker)):
        require(name, amount, is_number(amount) and amount >= 0, "a finite number of at least 0")
    try:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer
    except ImportError as error:
        raise DistributedError(
            f"workers = {workers}: needs Ray Train, which is not installed (pip install -r requirements-cluster.lock)"
        ) from error
    gpu = gpus_per_worker > 0
    resources = {"CPU": cpus_per_worker} | ({"GPU": gpus_per_worker} if gpu else {})

    def work():
        train_function()  # what it returns stays there: a model need not travel

    trainer = TorchTrainer(
        work,
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu, resources_per_worker=resources),
        run_config=RunConfig(
            storage_path=None if storage is None else str(storage),
            failure_config=FailureConfig(max_failures=retries),
        ),
    )
    try:
        trainer.fit()
    except Exception as error:  # each version of Ray has classes of its own for this
        causes = getattr(error, "worker_failures", None) or {0: error}
        cause = (str(next(iter(causes.values()))).strip() or repr(error)).splitlines()[-1].strip()
        raise DistributedError(f"workers = {workers}: they failed more than {retries} times: {cause}") from error


def join_process_group() -> None:
    """Join the process group that torchrun's environment variables describe; without them, do nothing."""
    if dist.is_initialized() or "WORLD_SIZE" not in os.environ:
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


# --- who we are, and what the others have -----------------------------------------------------------


def rank() -> int:
    """This worker's number, 0 .. world_size() - 1; 0 outside a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of workers; 1 outside a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def all_gather_object(value: Value) -> list[Value]:
    """The values of all workers, by rank, on every worker."""
    values = [value] * world_size()
    if dist.is_initialized():
        dist.all_gather_object(values, value)
    return values


def broadcast_object(value: Value) -> Value:
    """Worker 0's value, on every worker."""
    values = [value]
    if dist.is_initialized():
        dist.broadcast_object_list(values, 0)
    return values[0]


def raise_everywhere(action: Callable[[], Value]) -> Value:
    """action() of this worker; where it fails on any worker, the error is raised on all: none is left waiting."""
    result: Any = None
    error = None
    try:
        result = action()
    except Exception as failure:
        error = failure
    errors = [each for each in all_gather_object(error) if each is not None]
    if errors:
        raise error or errors[0]
    return result


def worker_seed(common: int) -> int:
    """This worker's seed, 0 to 2**32 - 1: worker 0 has the common one, so that one worker is the plain loop."""
    if rank() == 0:
        return common
    return int.from_bytes(hashlib.sha256(f"{common} {rank()}".encode()).digest()[:4])


# --- the model ------------------------------------------------------------------------------------


def shard(model: nn.Module, blocks: Iterable[nn.Module] = ()) -> nn.Module:
    """The model, in place, with each parameter split over the workers (FSDP2); unchanged outside a process group.

    blocks: parts of it that are gathered one at a time, when they run, such as the layers of a `Decoder`; all else is
    gathered for the whole of a pass. They and the model must be called as modules (its other methods see the split
    parameters), and every micro-batch must use all parameters. Raises ValueError unless all workers built the same
    weights.
    """
    if not dist.is_initialized():
        return model
    from torch.distributed.fsdp import fully_shard  # takes a second

    if len(set(all_gather_object(float(sum(p.detach().double().sum() for p in model.parameters()))))) > 1:
        raise ValueError("model: has other weights on other workers; set the seed before it is built")
    mesh = dist.device_mesh.init_device_mesh(next(model.parameters()).device.type, (world_size(),))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


class _Replica(DistributedDataParallel):
    """DDP that also passes on the model's own attributes, which a loss may use."""

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.module, name)


def replica(model: nn.Module) -> nn.Module:
    """What the loss is computed with: the model, wrapped in DDP inside a process group unless it is sharded."""
    if not dist.is_initialized():
        return model
    from torch.distributed.fsdp import FSDPModule  # takes a second

    if isinstance(model, FSDPModule):
        return model
    # micro-batches may leave parameters unused, as on one process; where none does, DDP remarks on it once
    return _Replica(model, find_unused_parameters=True)


def local_micro_batches(micro_batches: list) -> list[tuple]:
    """This worker's (micro-batch, whether it counts): every world_size()-th one, equally many on each worker.

    The workers meet in every pass. One that would be a micro-batch short repeats another that does not count.
    """
    passes = math.ceil(len(micro_batches) / world_size())
    chosen = range(rank(), passes * world_size(), world_size())
    return [(micro_batches[i % len(micro_batches)], i < len(micro_batches)) for i in chosen]


def accumulating(model: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Context of a pass: a replica adds up its own gradients and averages them over the workers in the last one."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) and not last else nullcontext()


def all_reduce_sums(
    loss: float | torch.Tensor, kept: int | torch.Tensor, device: torch.device
) -> tuple[float | torch.Tensor, int | torch.Tensor]:
    """(sum of the losses, sum of the kept tokens) over the workers; the very same values outside a process group."""
    if not dist.is_initialized():
        return loss, kept
    sums = torch.stack([torch.as_tensor(x, device=device).detach().to(torch.float64) for x in (loss, kept)])
    dist.all_reduce(sums)
    return sums[0], sums[1]


def full_tensor(norm: torch.Tensor) -> torch.Tensor:
    """A norm over shards as a plain tensor."""
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


def broadcast_(tensors: Iterable[torch.Tensor]) -> None:
    """Overwrite each tensor with that of worker 0."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.broadcast(tensor, 0)
