"""A process of its own for what must run with the pretended device, which changes torch for all of it."""

import importlib
import traceback
from multiprocessing import Pipe

from training.workers import process


class Apart:
    """Runs functions of the module `device.jobs` by name in one other process, one after the other."""

    def __init__(self):
        self.pipe, theirs = Pipe()
        self.child = process(_serve, theirs)
        theirs.close()

    def __call__(self, name, *args):
        """What the function returns; AssertionError with the other process's traceback where it fails."""
        self.pipe.send((name, args))
        assert self.pipe.poll(120), f"{name} hangs"
        failure, result = self.pipe.recv()
        assert failure is None, f"{name}{args}, in a process of its own:\n{failure}"
        return result

    def close(self):
        self.child.kill()
        self.child.join()


def _serve(pipe):
    jobs = importlib.import_module("device.jobs")
    while True:
        name, args = pipe.recv()
        try:
            pipe.send((None, getattr(jobs, name)(*args)))
        except Exception:
            pipe.send((traceback.format_exc(), None))
