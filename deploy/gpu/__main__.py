"""Command line: `python -m deploy.gpu COMMAND`, from the repository's root. Exit status as of `python -m paperwalk`."""

import re
import sys
from argparse import Namespace
from pathlib import Path

from deploy.gpu import pack, runner
from paperwalk import runs
from paperwalk.__main__ import Parser, exit_status
from paperwalk.data.fetch import CorpusError


def parser() -> Parser:
    """The two commands, each with the function that does it as `does`."""
    whole = Parser(prog="python -m deploy.gpu", description="The book on a bare GPU machine.")
    commands = whole.add_subparsers(dest="command", required=True, metavar="pack | run")
    commands.add_parser("pack", help="pack what such a machine lacks").set_defaults(does=make_loads)
    run = commands.add_parser(
        "run", help="on the machine: probe, tests, benchmarks, then chapters, within some minutes"
    )
    run.set_defaults(does=run_all)
    run.add_argument("--minutes", default="9", metavar="N", help="when to stop, all told (default: 9)")
    run.add_argument("--out", default="_runs/gpu", metavar="FOLDER", help="where the results go (default: _runs/gpu)")
    run.add_argument("--only", nargs="+", action="extend", default=[], metavar="NAME", help="only these")
    run.add_argument("--dry", action="store_true", help="the same way on a CPU, at ci scale")
    run.add_argument("--stage", metavar="FOLDER", help="where loads are laid out (default: a temporary folder)")
    return whole


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    return exit_status(parser(), arguments)


def make_loads(given: Namespace) -> None:
    """Makes the loads and prints what is in each."""
    try:
        loads = pack.make()
    except (pack.PackError, CorpusError) as error:
        raise runs.RunError(str(error)) from error
    tree = pack.tree_size(runs.ROOT)
    for name, files in loads.items():
        whole = sum(files.values())
        print(f"{pack.FOLDER}/{name}: {whole / 2**20:.1f} MiB, with the repository {(whole + tree) / 2**20:.1f} of 64")
        for file, size in files.items():
            print(f"  {file:<60} {size / 2**20:6.1f} MiB")


def run_all(given: Namespace) -> int:
    """Runs the boxes; the exit status: 1 where one failed."""
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", given.minutes) or not 1 <= float(given.minutes) <= 1000:
        raise runs.ParameterError(f"minutes = {given.minutes!r}: must be a number from 1 to 1000")
    if not given.dry and not runs.has_cuda_device():
        raise runs.ParameterError("gpu: no CUDA device was found; --dry walks the same way on a CPU")
    stage = Path(given.stage) if given.stage else None
    if not any((runs.ROOT / pack.FOLDER).glob("load-*")):
        print(f"no loads in {pack.FOLDER} (make gpu-pack): texts and models come from the cache or the network")
    try:
        failed = runner.run_all(float(given.minutes), Path(given.out), given.only, given.dry, stage=stage)
    except pack.PackError as error:
        raise runs.RunError(str(error)) from error
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
