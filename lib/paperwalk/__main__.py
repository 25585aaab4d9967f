"""Command line: `python -m paperwalk COMMAND`. Exit status: 2 for bad input, 1 for a failed run."""

import argparse
import os
import sys
import time
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from paperwalk import evidence, runs, values
from paperwalk.book import freshness, new, publish
from paperwalk.launch import cluster, many
from paperwalk.show import tables


class Parser(argparse.ArgumentParser):
    """argparse with one line for an error, as for every other bad input."""

    def error(self, message: str) -> NoReturn:
        raise runs.ParameterError(f"{message} (see {self.prog} --help)")


def parser() -> Parser:
    """The commands, each with the function that does it as `does`."""
    whole = Parser(prog="python -m paperwalk", description="Runs the chapters of the book.", allow_abbrev=False)
    commands = whole.add_subparsers(dest="command", required=True, metavar=" | ".join(COMMANDS))
    for name, (does, help_text) in COMMANDS.items():
        command = commands.add_parser(name, help=help_text, allow_abbrev=False)  # --seed is not --seeds
        command.set_defaults(does=does)
        for option, settings in OPTIONS.get(name, {}).items():
            command.add_argument(option, **settings)
    return whole


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    return exit_status(parser(), arguments)


def exit_status(commands: Parser, arguments: list[str] | None) -> int:
    """Does what the parsed arguments name as `does`; what goes wrong is a line on stderr and the exit status."""
    try:
        given = commands.parse_args(arguments)
        return given.does(given) or 0
    except runs.ParameterError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    except (runs.RunError, evidence.EvidenceError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
    except OSError as error:
        print(runs.in_words(error), file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 1


def run(given: Namespace) -> None:
    """Plans the runs and starts them."""
    changed, sweep = values.overrides(given.set), values.sweep(given.sweep)
    wanted = values.resources(given.resources, cluster.RESOURCES)
    if wanted and given.cluster is None:
        raise runs.ParameterError(f"resources = {given.resources[0]!r}: must come with --cluster")
    seeds, elsewhere = values.seeds(given.seeds), given.cluster is not None
    if given.evidence and given.again:
        raise runs.ParameterError("again: must not come with --evidence, which is never overwritten")
    planned = many.plan(given.chapter, given.profile, seeds, changed, sweep, elsewhere, as_evidence=given.evidence)
    run_chapter(planned, given.again, given.cluster, wanted)


def measure_evidence(given: Namespace) -> None:
    """Measures the seeds of a chapter's evidence that are missing, one a core, and prints what is decided and open."""
    chapter, seeds = given.chapter, values.seeds(given.seeds)
    cores = values.count(given.cores, "cores") if given.cores else len(os.sched_getaffinity(0))
    if given.supersede is not None:
        evidence.check_committed(chapter, given.profile, seeds)
        for file in evidence.supersede(chapter, given.profile, given.supersede):
            print(f"superseded: {file.relative_to(runs.ROOT)}")
    planned = many.plan(chapter, given.profile, seeds, {}, {}, as_evidence=True)
    done = [run for run in planned if many.is_done(run)]
    pending = [run for run in planned if run not in done]
    states = many.follow(planned, done, many.one_a_core(pending, cores), live=True)
    print(tables.verdicts(chapter))
    if failures := [note for state, note in states.values() if state == "failed"]:
        raise runs.RunError(f"{len(failures)} of {len(planned)} runs failed: {'; '.join(failures)}")


def run_chapter(
    planned: list[many.Run], again: bool = False, address: str | None = None, wanted: dict[str, float] | None = None
) -> None:
    """Runs what is not done, here or on the cluster at an address; a run that the book shows takes its place there.

    Raises RunError when a run failed, after all have ended.
    """
    skipped = [] if again else [run for run in planned if many.is_done(run)]
    pending = [run for run in planned if run not in skipped]
    if address is None or not pending:
        states = many.follow(planned, skipped, many.one_by_one(pending), live=False)
    else:
        states = many.follow(planned, skipped, cluster.on_ray(pending, address, wanted or {}), live=True)
    failures = {run: note for run, (state, note) in states.items() if state == "failed"}
    for run in planned:
        if run.is_shown and run not in failures:
            shown = runs.notebook_path(run.chapter)
            if run in pending or freshness.stale(shown) == "measured":
                freshness.promote(run.chapter, run.notebook())
            others = [file for file in freshness.notebooks() if file.stem not in runs.chapters()]
            refresh_reports([shown, *others])
    if len(failures) == 1:
        raise runs.RunError(*failures.values())
    if failures:
        raise runs.RunError(f"{len(failures)} of {len(planned)} runs failed: {'; '.join(map(str, failures))}")


def plan(given: Namespace) -> None:
    """Prints what the chapter would cost at the scale."""
    chapter, profile, mfu, gpus = (
        given.chapter,
        given.profile,
        values.share(given.mfu),
        values.count(given.gpus, "gpus"),
    )
    runs.profile_values(chapter, profile)  # bad input ends here, before torch is imported

    from paperwalk import costs

    print(costs.text(chapter, profile, costs.plan(chapter, profile, given.gpu, mfu, gpus)))


def profile(given: Namespace) -> None:
    """Runs the chapter once, as a trial with seed 0, and prints what its arms' time went into."""
    import json
    import tempfile

    from paperwalk import profiling
    from paperwalk.runs.execution import environment

    changed = values.overrides(given.set)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "profile.jsonl"
        file.touch()  # a chapter may have no arms
        with environment(**{profiling.PROFILED: str(file)}):
            start = time.monotonic()
            runs.execute(given.chapter, given.profile, 0, changed)
            taken = time.monotonic() - start
        arms = [json.loads(line) for line in file.read_text().splitlines()]
    print(profiling.table(arms, taken))


def list_chapters(given: Namespace) -> None:
    """Prints a table of chapters, profiles, seeds with committed evidence, and whether that is fresh."""
    row, chapters = "{:<20} {:<8} {:>5}  {}".format, runs.chapters()
    print(row("chapter", "profile", "seeds", "evidence"))
    for chapter in chapters:
        for profile in runs.profiles(chapter):
            fresh = [evidence.is_fresh(result) for result in evidence.load(chapter, profile)]
            print(row(chapter, profile, len(fresh), "none" if not fresh else "fresh" if all(fresh) else "stale"))


def new_chapter(given: Namespace) -> None:
    """Makes the chapter and prints its files."""
    for file in new.make(given.slug):
        print(file.relative_to(runs.ROOT))
    print(f"made; next: CONTRIBUTING.md, and python -m paperwalk run {given.slug} --profile ci")


def publish_at(given: Namespace) -> None:
    """Sets the address and prints the files that hold it."""
    for file in publish.publish(given.url, given.branch):
        print(file.relative_to(runs.ROOT))


def fetch(given: Namespace) -> None:
    """Downloads what packages.txt lists, and cleans the texts."""
    from paperwalk.data.fetch import CorpusError, packages
    from paperwalk.data.fetch import fetch as download
    from paperwalk.launch import prefetch

    try:
        for name in packages():
            print(download(name).name, flush=True)
        for file in prefetch.cached():
            print(file.name, flush=True)
    except CorpusError as error:
        raise runs.RunError(str(error)) from error


def refresh_book(given: Namespace) -> None:
    """Runs the chapters whose measuring code changed, then refreshes what reports are out of date."""
    stale = {file: freshness.stale(file) for file in freshness.notebooks()}
    if not any(stale.values()):
        print("every notebook is up to date")
    for file, what in stale.items():
        if what == "measured":
            print(f"{file.stem}: its code changed since its last run; running it (laptop, seed 0)")
            run_chapter(many.plan(file.stem, "laptop", [0], {}, {}))
    refresh_reports(stale)


def refresh_reports(files: Iterable[Path]) -> None:
    """Runs the report cells of the files that need it."""
    for file in files:
        if freshness.stale(file) == "reported":
            print(f"{file.stem}: refreshing its tables and figures", flush=True)
            freshness.refresh(file)


COMMANDS = {  # name: the function that does it, and what it says of itself
    "run": (run, "run a chapter's notebook, once a seed"),
    "evidence": (
        measure_evidence,
        "measure what is missing of a chapter's evidence, a seed a core, and say what is open",
    ),
    "plan": (plan, "what a chapter would cost at a scale, in time, memory, disk or money"),
    "profile": (profile, "run a chapter once, and say what the time of its arms went into"),
    "list": (list_chapters, "chapters, profiles and the committed evidence"),
    "refresh": (refresh_book, "bring every notebook of the book up to date"),
    "new": (new_chapter, "make a new chapter from the template"),
    "publish": (publish_at, "set the repository's public address"),
    "fetch": (fetch, "download and clean what the chapters read, so that runs need no network"),
}
SCALES = f"scale: {', '.join(runs.PROFILES)}"
OPTIONS: dict[str, dict[str, dict]] = {  # of each command, as argparse takes them
    "run": {
        "chapter": {},
        "--profile": {"default": "laptop", "help": f"{SCALES} (default: laptop)"},
        "--seeds": {"default": "1", "metavar": "N", "help": "seeds 0 to N-1, or as 100-104 or 100,107 (default: 1)"},
        "--set": {"action": "append", "default": [], "metavar": "NAME=VALUE", "help": "override a parameter"},
        "--sweep": {
            "action": "append",
            "default": [],
            "metavar": "NAME=A,B,...",
            "help": "run with each of the values",
        },
        "--again": {"action": "store_true", "help": "run also what is done"},
        "--evidence": {
            "action": "store_true",
            "help": f"results are for the book: of a clean working tree, seeds from {evidence.FIRST_SEED} on",
        },
        "--cluster": {
            "nargs": "?",
            "const": "",
            "metavar": "ADDRESS",
            "help": "run side by side on a Ray cluster (default: here)",
        },
        "--resources": {
            "action": "append",
            "default": [],
            "metavar": "NAME=NUMBER",
            "help": f"what a run asks of a node: {', '.join(cluster.RESOURCES)}",
        },
    },
    "evidence": {
        "chapter": {},
        "--profile": {"default": "evening", "help": f"one of {', '.join(evidence.SCALES)} (default: evening)"},
        "--seeds": {
            "default": "100-104",
            "metavar": "N-M",
            "help": "the seeds that there should be (default: 100-104)",
        },
        "--cores": {"metavar": "N", "help": "processes side by side, of one thread each (default: all cores)"},
        "--supersede": {"metavar": "REASON", "help": "first move evidence of other code or data out of the way"},
    },
    "plan": {
        "chapter": {},
        "--profile": {"default": "paper", "help": f"{SCALES} (default: paper)"},
        "--gpu": {"default": "H100", "help": "its peak and memory are taken (default: H100)"},
        "--gpus": {"default": "1", "metavar": "N", "help": "GPUs that share the state (default: 1)"},
        "--mfu": {"default": "0.4", "metavar": "SHARE", "help": "share of the peak that is reached (default: 0.4)"},
    },
    "profile": {
        "chapter": {},
        "--profile": {"default": "ci", "help": f"{SCALES} (default: ci)"},
        "--set": {"action": "append", "default": [], "metavar": "NAME=VALUE", "help": "override a parameter"},
    },
    "new": {"slug": {}},
    "publish": {"url": {}, "--branch": {"default": "main"}},
}

if __name__ == "__main__":
    sys.exit(main())
