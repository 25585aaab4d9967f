"""The measured figures that a page's prose cites: never typed, always read from the chapter's results."""

import math

from paperwalk import evidence, runs


def glue_figures(chapter: str) -> None:
    """Glues the figures that the chapter's text cites with the role glue:text, for MyST-NB to fill in.

    They are those of the runs that `evidence.shown` gives. "measure.arm" stands for the mean, "measure.arm minus other"
    for the mean difference of two arms, "claim.ID" for what the table of claims has; `low.` and `high.` before them for
    the ends of the 95 % interval, `parameter.NAME` for a parameter of the runs, `run.minutes` for the mean wall time of
    one. Other names are left to the page: the book's build warns of those that nobody glues, and so fails.
    """
    from myst_nb import glue

    results = evidence.shown(chapter)
    judged = {
        f"claim.{row['id']}": evidence.Estimate(row["ours"], row["low"], row["high"], row["seeds"], row["items"])
        for row in evidence.judged(chapter)
        if row["seeds"]
    }
    for name in runs.cited(runs.notebook_path(chapter)):
        end, _, figure = name.partition(".") if name.startswith(("low.", "high.")) else ("mean", "", name)
        if figure.startswith("parameter.") and results:
            value = results[0].parameters[figure.removeprefix("parameter.")]
        elif figure == "run.minutes" and results:
            value = sum(run.meta["wall_seconds"] for run in results) / len(results) / 60
        else:
            value = float(getattr(judged.get(figure) or cited(chapter, results, figure), end))
            if math.isnan(value):
                continue
        glue(name, value, display=False)


def cited(chapter: str, results: list[evidence.Run], figure: str) -> evidence.Estimate:
    """The figure's mean over the runs and its interval; NaN where they do not hold it."""
    named, _, minus = figure.partition(" minus ")
    measure, _, arm = named.partition(".")
    known = evidence.measures(chapter)
    bounds = known[measure].bounds if measure in known else (-math.inf, math.inf)
    return evidence.contrast(results, measure, arm, minus or None, bounds=bounds)
