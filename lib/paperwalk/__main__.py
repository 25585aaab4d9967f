"""Command line: `python -m paperwalk COMMAND`. Exit status: 2 for bad input, 1 for a failed run."""

import argparse
import re
import sys
from pathlib import Path

import yaml

from paperwalk import cluster, evidence, fanout, new, publish, runs


class Parser(argparse.ArgumentParser):
    """argparse with one line for an error, as for every other bad input."""

    def error(self, message):
        raise runs.ParameterError(f"{message} (see {self.prog} --help)")


def main(arguments=None) -> int:
    """Runs the command; returns the exit status."""
    parser = Parser(prog="python -m paperwalk", description="Runs the chapters of the book.")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="run | plan | list | refresh | new | publish | gpu-pack | gpu"
    )
    run = commands.add_parser("run", help="run a chapter's notebook, once a seed")
    run.add_argument("chapter")
    run.add_argument("--profile", default="laptop", help=f"scale: {', '.join(runs.PROFILES)} (default: laptop)")
    run.add_argument("--seeds", default="1", metavar="N", help="seeds 0 to N-1 (default: 1)")
    run.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="override a parameter")
    run.add_argument("--sweep", action="append", default=[], metavar="NAME=A,B,...", help="run with each of the values")
    run.add_argument("--again", action="store_true", help="run also what is done")
    run.add_argument(
        "--cluster", nargs="?", const="", metavar="ADDRESS", help="run side by side on a Ray cluster (default: here)"
    )
    run.add_argument(
        "--resources",
        action="append",
        default=[],
        metavar="NAME=NUMBER",
        help=f"what a run asks of a node: {', '.join(cluster.RESOURCES)}",
    )
    plan = commands.add_parser("plan", help="what a chapter would cost at a scale, in time, memory, disk or money")
    plan.add_argument("chapter")
    plan.add_argument("--profile", default="paper", help=f"scale: {', '.join(runs.PROFILES)} (default: paper)")
    plan.add_argument("--gpu", default="H100", help="its peak and memory are taken (default: H100)")
    plan.add_argument("--gpus", default="1", metavar="N", help="GPUs that share the state (default: 1)")
    plan.add_argument("--mfu", default="0.4", metavar="SHARE", help="share of the peak that is reached (default: 0.4)")
    commands.add_parser("list", help="chapters, profiles and the committed evidence")
    commands.add_parser("refresh", help="bring every notebook of the book up to date")
    commands.add_parser("new", help="make a new chapter from the template").add_argument("slug")
    address = commands.add_parser("publish", help="set the repository's public address")
    address.add_argument("url")
    address.add_argument("--branch", default="main")
    commands.add_parser("gpu-pack", help="pack what a bare GPU machine lacks")
    gpu = commands.add_parser(
        "gpu", help="on a GPU machine: probe, tests, benchmarks, then chapters, within some minutes"
    )
    gpu.add_argument("--minutes", default="9", metavar="N", help="when to stop, all told (default: 9)")
    gpu.add_argument("--out", default="_runs/gpu", metavar="FOLDER", help="where the results go (default: _runs/gpu)")
    gpu.add_argument("--only", nargs="+", action="extend", default=[], metavar="NAME", help="only these")
    gpu.add_argument("--dry", action="store_true", help="the same way on a CPU, at ci scale")
    gpu.add_argument("--stage", metavar="FOLDER", help="where loads are laid out (default: a temporary folder)")
    try:
        given = parser.parse_args(arguments)
        if given.command == "run":
            changed, sweep, wanted = _overrides(given.set), _sweep(given.sweep), _resources(given.resources)
            if wanted and given.cluster is None:
                raise runs.ParameterError(f"resources = {given.resources[0]!r}: must come with --cluster")
            seeds, elsewhere = _count(given.seeds), given.cluster is not None
            planned = fanout.plan(given.chapter, given.profile, seeds, changed, sweep, elsewhere)
            run_chapter(planned, given.again, given.cluster, wanted)
        elif given.command == "plan":
            plan_chapter(given.chapter, given.profile, given.gpu, _share(given.mfu), _count(given.gpus, "gpus"))
        elif given.command == "list":
            list_chapters()
        elif given.command == "gpu-pack":
            pack_for_gpu()
        elif given.command == "gpu":
            return run_on_gpu(_minutes(given.minutes), given)
        elif given.command == "new":
            new_chapter(given.slug)
        elif given.command == "publish":
            for file in publish.publish(given.url, given.branch):
                print(file.relative_to(runs.ROOT))
        else:
            refresh_book()
    except runs.ParameterError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    except (runs.RunError, evidence.EvidenceError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    except OSError as error:
        print(runs.in_words(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def run_chapter(planned, again=False, address=None, wanted=None):
    """Runs what is not done, here or on the cluster at an address; a run that the book shows takes its place there.

    Raises RunError when a run failed, after all have ended.
    """
    skipped = [] if again else [run for run in planned if fanout.is_done(run)]
    pending = [run for run in planned if run not in skipped]
    here = address is None or not pending
    events = fanout.one_by_one(pending) if here else cluster.on_ray(pending, address, wanted)
    states = fanout.follow(planned, skipped, events, live=not here)
    failures = {run: note for run, (state, note) in states.items() if state == "failed"}
    for run in planned:
        if run.is_shown and run not in failures:
            shown = runs.notebook_path(run.chapter)
            if run in pending or runs.stale(shown) == "measured":
                runs.promote(run.chapter, run.notebook())
            others = [file for file in runs.notebooks() if file.stem not in runs.chapters()]
            refresh_reports([shown, *others])
    if len(failures) == 1:
        raise runs.RunError(*failures.values())
    if failures:
        raise runs.RunError(f"{len(failures)} of {len(planned)} runs failed: {'; '.join(map(str, failures))}")


def plan_chapter(chapter, profile, gpu, mfu, gpus):
    """Prints what the chapter would cost at the scale."""
    runs.profile_values(chapter, profile)  # bad input ends here, before torch is imported
    from paperwalk import plan

    print(plan.text(chapter, profile, plan.plan(chapter, profile, gpu, mfu, gpus)))


def list_chapters():
    """Prints a table of chapters, profiles, seeds with committed evidence, and whether that is fresh."""
    row = "{:<20} {:<8} {:>5}  {}".format
    print(row("chapter", "profile", "seeds", "evidence"))
    for chapter in runs.chapters():
        measured = runs.measured_hash(runs.notebook_path(chapter))
        for profile in runs.profiles(chapter):
            fresh = [result["code_hash"] == measured for result in evidence.load(chapter, profile)]
            print(row(chapter, profile, len(fresh), "none" if not fresh else "fresh" if all(fresh) else "stale"))


def new_chapter(slug):
    """Makes the chapter and prints its files."""
    for file in new.make(slug):
        print(file.relative_to(runs.ROOT))
    print(f"made; next: CONTRIBUTING.md, and python -m paperwalk run {slug} --profile ci")


def pack_for_gpu():
    """Makes the loads and prints what is in each."""
    from paperwalk import corpora
    from paperwalk.gpu import pack

    try:
        loads = pack.make()
    except (pack.PackError, corpora.CorpusError) as error:
        raise runs.RunError(str(error)) from error
    tree = pack.tree_size(runs.ROOT)
    for name, files in loads.items():
        whole = sum(files.values())
        print(f"{pack.FOLDER}/{name}: {whole / 2**20:.1f} MiB, with the repository {(whole + tree) / 2**20:.1f} of 64")
        for file, size in files.items():
            print(f"  {file:<60} {size / 2**20:6.1f} MiB")


def run_on_gpu(minutes, given):
    """Runs the boxes; the exit status: 1 where one failed."""
    from paperwalk.gpu import pack, runner

    if not given.dry and not runs.has_cuda_device():
        raise runs.ParameterError("gpu: no CUDA device was found; --dry walks the same way on a CPU")
    stage = Path(given.stage) if given.stage else None
    if not any((runs.ROOT / pack.FOLDER).glob("load-*")):
        print(f"no loads in {pack.FOLDER} (make gpu-pack): texts and models come from the cache or the network")
    try:
        failed = runner.run_all(minutes, Path(given.out), given.only, given.dry, stage=stage)
    except pack.PackError as error:
        raise runs.RunError(str(error)) from error
    return 1 if failed else 0


def refresh_book():
    """Runs the chapters whose measuring code changed, then refreshes what reports are out of date."""
    stale = {file: runs.stale(file) for file in runs.notebooks()}
    if not any(stale.values()):
        print("every notebook is up to date")
    for file, what in stale.items():
        if what == "measured":
            print(f"{file.stem}: its code changed since its last run; running it (laptop, seed 0)")
            run_chapter(fanout.plan(file.stem, "laptop", 1, {}, {}))
    refresh_reports(stale)


def refresh_reports(files):
    """Runs the report cells of the files that need it."""
    for file in files:
        if runs.stale(file) == "reported":
            print(f"{file.stem}: refreshing its tables and figures", flush=True)
            runs.refresh(file)


def _count(text, name="seeds"):
    if not re.fullmatch(r"[0-9]+", text) or int(text) < 1:
        raise runs.ParameterError(f"{name} = {text!r}: must be a whole number of at least 1")
    return int(text)


def _minutes(text):
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) or not 1 <= float(text) <= 1000:
        raise runs.ParameterError(f"minutes = {text!r}: must be a number from 1 to 1000")
    return float(text)


def _share(text):
    try:
        return float(text)
    except ValueError as error:
        raise runs.ParameterError(f"mfu = {text!r}: must be a number above 0 and at most 1") from error


def _split(option, setting):
    """(name, text) of NAME=TEXT."""
    name, separator, text = setting.partition("=")
    if not separator or not name:
        raise runs.ParameterError(f"{option} = {setting!r}: must be NAME=VALUE")
    return name, text


def _value(name, text):
    """VALUE as YAML, or a number like 1e-3, which YAML takes for text."""
    try:
        return _number(yaml.safe_load(text) if not _is_number(text) else text)
    except (ValueError, yaml.YAMLError) as error:
        raise runs.ParameterError(f"{name} = {text!r}: must be a YAML value") from error


def _is_number(value):
    return isinstance(value, str) and re.fullmatch(r"[-+\d.]+[eE][-+]?\d+", value)


def _number(value):
    return float(value) if _is_number(value) else value


def _overrides(settings):
    """{name: value} of NAME=VALUE texts."""
    return {name: _value(name, text) for name, text in (_split("set", setting) for setting in settings)}


def _sweep(settings):
    """{name: values} of NAME=A,B,... texts; a value may be a list in square brackets."""
    sweep = {}
    for setting in settings:
        name, text = _split("sweep", setting)
        try:
            values = yaml.safe_load(f"[{text}]")
        except yaml.YAMLError:
            values = None
        if not values or None in values:
            raise runs.ParameterError(f"sweep {name} = {text!r}: must be YAML values with commas between, none empty")
        if name in sweep:
            raise runs.ParameterError(f"sweep {name}: must be given once")
        sweep[name] = [_number(value) for value in values]
    return sweep


def _resources(settings):
    """{name: number} of NAME=NUMBER texts."""
    wanted = {}
    for setting in settings:
        name, text = _split("resources", setting)
        if name not in cluster.RESOURCES:
            raise runs.ParameterError(f"resources {name!r}: must be one of {', '.join(cluster.RESOURCES)}")
        try:
            wanted[name] = float(text)
        except ValueError:
            wanted[name] = -1.0
        if not 0 <= wanted[name] < 1e6:  # NaN neither
            raise runs.ParameterError(f"resources {name} = {text!r}: must be a number from 0 to below 1e6")
        if name == "gpus" and wanted[name] > 1 and wanted[name] % 1:
            raise runs.ParameterError(f"resources gpus = {text!r}: must be a whole number, or a share of one GPU")
    return wanted


if __name__ == "__main__":
    sys.exit(main())
