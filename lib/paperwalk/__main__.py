"""Command line: `python -m paperwalk COMMAND`. Exit status: 2 for bad input, 1 for a failed run."""

import argparse
import re
import sys

import yaml

from paperwalk import evidence, new, publish, runs


class Parser(argparse.ArgumentParser):
    """argparse with one line for an error, as for every other bad input."""

    def error(self, message):
        raise runs.ParameterError(f"{message} (see {self.prog} --help)")


def main(arguments=None) -> int:
    """Runs the command; returns the exit status."""
    parser = Parser(prog="python -m paperwalk", description="Runs the chapters of the book.")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="run | plan | list | refresh | new | publish"
    )
    run = commands.add_parser("run", help="run a chapter's notebook, once a seed")
    run.add_argument("chapter")
    run.add_argument("--profile", default="laptop", help=f"scale: {', '.join(runs.PROFILES)} (default: laptop)")
    run.add_argument("--seeds", default="1", metavar="N", help="seeds 0 to N-1 (default: 1)")
    run.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="override a parameter")
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
    try:
        given = parser.parse_args(arguments)
        if given.command == "run":
            run_chapter(given.chapter, given.profile, _count(given.seeds), _overrides(given.set))
        elif given.command == "plan":
            plan_chapter(given.chapter, given.profile, given.gpu, _share(given.mfu), _count(given.gpus, "gpus"))
        elif given.command == "list":
            list_chapters()
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
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def run_chapter(chapter, profile, seeds, overrides):
    """Runs the seeds; the plain laptop run of seed 0 becomes what the book shows."""
    executed = [runs.execute(chapter, profile, seed, overrides) for seed in range(seeds)]
    if profile == "laptop" and not overrides:
        shown = runs.promote(chapter, executed[0])
        others = [file for file in runs.notebooks() if file.stem not in runs.chapters()]
        refresh_reports([shown, *others])


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


def refresh_book():
    """Runs the chapters whose measuring code changed, then refreshes what reports are out of date."""
    stale = {file: runs.stale(file) for file in runs.notebooks()}
    if not any(stale.values()):
        print("every notebook is up to date")
    for file, what in stale.items():
        if what == "measured":
            print(f"{file.stem}: its code changed since its last run; running it (laptop, seed 0)")
            run_chapter(file.stem, "laptop", 1, {})
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


def _share(text):
    try:
        return float(text)
    except ValueError as error:
        raise runs.ParameterError(f"mfu = {text!r}: must be a number above 0 and at most 1") from error


def _overrides(settings):
    """{name: value} of NAME=VALUE texts; VALUE is YAML, or a number like 1e-3, which YAML takes for text."""
    values = {}
    for setting in settings:
        name, separator, text = setting.partition("=")
        if not separator or not name:
            raise runs.ParameterError(f"set = {setting!r}: must be NAME=VALUE")
        try:
            values[name] = float(text) if re.fullmatch(r"[-+\d.]+[eE][-+]?\d+", text) else yaml.safe_load(text)
        except (ValueError, yaml.YAMLError) as error:
            raise runs.ParameterError(f"{name} = {text!r}: must be a YAML value") from error
    return values


if __name__ == "__main__":
    sys.exit(main())
