"""The measured figures that a page's prose cites: never typed, always read from the committed results."""

from paperwalk import evidence, runs


def glue_figures(chapter: str, profile: str = "laptop") -> None:
    """Glues the figures that the chapter's text cites with the role glue:text, for MyST-NB to fill in.

    A metric's name stands for its mean over the committed seeds; `low.` and `high.` before it for the ends of its 95 %
    interval, `parameter.NAME` for a parameter of the runs, `run.minutes` for the mean wall time of one of them. Other
    names are left to the page: the book's build warns of those that nobody glues, and so fails.
    """
    from myst_nb import glue

    results = evidence.load(chapter, profile)
    for name in runs.cited(runs.notebook_path(chapter)):
        end, _, metric = name.partition(".") if name.startswith(("low.", "high.")) else ("mean", "", name)
        if numbers := evidence.values(results, metric):
            glue(name, float(getattr(evidence.summarise(numbers), end)), display=False)
        elif name.startswith("parameter.") and results:
            glue(name, results[0]["parameters"][name.removeprefix("parameter.")], display=False)
        elif name == "run.minutes" and results:
            glue(name, sum(result["wall_seconds"] for result in results) / len(results) / 60, display=False)
