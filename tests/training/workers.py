"""Processes for the tests: forked from one that has imported torch, and, if asked, joined in a process group."""

import multiprocessing
import os
import socket
import threading

import torch
from tqdm import tqdm

from paperwalk.training import distributed

IMPORTED = (
    "torch._dynamo",  # a process's first optimizer would import it, which takes seconds
    "torch.distributed.checkpoint",
    "torch.distributed.fsdp",
    "paperwalk.models.fam",
    "paperwalk.models.seq2seq",
    "paperwalk.training",
)
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(list(IMPORTED))


def process(function, *args):
    """A started process that runs the function on one thread."""
    child = _context.Process(target=_on_one_thread, args=(function, *args), daemon=True)
    child.start()
    return child


def _on_one_thread(function, *args):
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its default, shared by processes, would outlive a kill
    function(*args)


class Workers:
    """`size` processes joined, as torchrun joins them, in one group (gloo); call it to run a function on all."""

    def __init__(self, size):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        pipes = [_context.Pipe() for _ in range(size)]
        self.pipes = [ours for ours, _ in pipes]
        self.processes = [process(_serve, rank, size, port, theirs) for rank, (_, theirs) in enumerate(pipes)]

    def __call__(self, function, *args):
        """The results of function(*args) by rank, or exceptions in their place."""
        self.start(function, *args)
        return self.results()

    def results(self):
        for pipe in self.pipes:
            assert pipe.poll(60), "a worker hangs"
        return [pipe.recv() for pipe in self.pipes]

    def start(self, function, *args):
        """Run function(*args) on all, without waiting."""
        for pipe in self.pipes:
            pipe.send((function, args))

    def close(self):
        """kill -9 of all."""
        for child in self.processes:
            child.kill()
        for child in self.processes:
            child.join()


def _serve(rank, size, port, pipe):
    os.environ.update(
        {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
        | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    )
    distributed.join_process_group()
    while True:
        function, args = pipe.recv()
        try:
            pipe.send(function(*args))
        except Exception as error:
            pipe.send(error)
