"""Evidence as HTML tables: a chapter's claims, the scoreboard, where and when it was measured, benchmarks, faults."""

import csv
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from paperwalk import evidence, runs
from paperwalk.runs.files import resolve_root
from paperwalk.show.templates import digest, macros

# A sign besides the colour, so that a verdict can be told without seeing colours.
SIGNS = {"reproduced": "✔", "partly": "◐", "not reproduced": "✘", "not attempted": "–"}
SIGNS |= {"yes": "✔", "no": "✘", "undecided": "◐", "shown": "✔", "not shown": "✘"}

_HTML = macros("table.html")
_td = _HTML.td


class Table:
    """Shows as the HTML table given; `text` stands for it where no HTML is shown.

    head: titles of the columns; rows: lists of cells, each a <td> or <th> as HTML. choices: {title of a column: value
    of each row}. By these columns a reader can filter and sort the rows where scripts run; elsewhere the whole table
    stands. stacks: on a phone the cells of a row stand one below the other, all but the first with the title of their
    column.
    """

    def __init__(
        self,
        caption: str,
        head: Sequence[str],
        rows: Sequence[Sequence[str]],
        text: str,
        choices: Mapping[str, Sequence[str]] | None = None,
        stacks: bool = False,
    ):
        choices = choices or {}
        orders = {title: _in_order(column) for title, column in choices.items()}
        places = [[orders[title].index(column[n]) for title, column in choices.items()] for n in range(len(rows))]
        keys = {title: key for key, title in enumerate(orders)}
        keyed = [(title, keys.get(title)) for title in head]
        name = f"pw-table-{digest(keyed, rows, orders)}"
        self.html = str(_HTML.table(name, caption, keyed, list(zip(places, rows)), orders, stacks))
        self.text = text

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def _in_order(column: Sequence[str]) -> list[str]:
    """The different values of a column: verdicts from good to bad, any other as they come."""
    return [sign for sign in SIGNS if sign in column] or list(dict.fromkeys(column))


def comparison(chapter: str, root: Path | None = None) -> Table:
    """The chapter's claims: the paper's value, then ours and the verdict at each scale. Reads files only."""
    by_claim: dict[str, list[dict]] = {}
    for row in evidence.judged(chapter, root):
        by_claim.setdefault(row["id"], []).append(row)
    rows = []
    for scales in by_claim.values():
        first = scales[0]
        below = first.get("not_attempted") or f"{first['where']}; we asked for {first['criterion']}"
        at = {
            row["profile"]: _HTML.lines([_figure(row), _verdict(row)] if row["n"] else [_verdict(row)])
            for row in scales
        }
        cells = [_number(at.get(scale, "")) for scale in evidence.SCALES]
        rows.append([_td(_HTML.noted(first["claim"], below)), _td(first["paper"]), *cells])
    caption = "Mean over seeds ± standard deviation, n seeds, 95 % interval, and the verdict at each scale."
    return Table(caption, ["claim", "paper", *evidence.SCALES], rows, f"{len(rows)} claims of {chapter}", stacks=True)


def scoreboard(root: Path | None = None) -> Table:
    """Every claim of every chapter at every scale, each with a link to where it is measured."""
    judged = [row for chapter in runs.chapters(root) for row in evidence.judged(chapter, root)]
    rows = []
    for row in judged:
        link = _HTML.link(row["chapter"], row.get("section"), row["claim"])
        cells = [row["chapter"], _HTML.noted(link, row.get("not_attempted")), row["paper"]]
        rows.append([*map(_td, cells), _number(_figure(row)), _td(row["profile"]), _td(_verdict(row))])
    fields = {"chapter": "chapter", "scale": "profile", "verdict": "answer"}
    choices = {title: [row[field] for row in judged] for title, field in fields.items()}
    head = ["chapter", "claim", "paper", "ours", "scale", "verdict"]
    return Table("One row a claim and scale.", head, rows, f"{len(rows)} rows", choices, stacks=True)


def counts(root: Path | None = None, scales: Sequence[str] = evidence.SCALES) -> Table:
    """How many claims have which verdict and how many questions which answer, by chapter and scale."""
    rows, n = [], 0
    for chapter in runs.chapters(root):
        judged = evidence.judged(chapter, root)
        n += len(judged)
        for scale in scales:
            told = [(row["kind"], row["answer"]) for row in judged if row["profile"] == scale]
            cells = [("claim", verdict) for verdict in evidence.VERDICTS]
            cells += [("question", answer) for answer in (*evidence.ANSWERS, "not attempted")]
            rows.append([_td(chapter), _td(scale), *(_number(told.count(cell)) for cell in cells)])
    words = [*evidence.VERDICTS, *evidence.ANSWERS, "not attempted"]
    head = ["chapter", "scale", *(f"{SIGNS[word]} {word}" for word in words)]
    caption = "Claims by verdict (the first four), and questions by answer (the last four)."
    return Table(caption, head, rows, f"{n} claims and questions at all scales")


def status(root: Path | None = None) -> Table:
    """When, where and on what each committed results file was measured."""
    board = evidence.status(root)
    rows = []
    for row in board.to_dict("records"):
        row["commit"] = row["commit"][:7]
        row |= {"minutes": f"{row['minutes']:.1f}", "peak GB": f"{row['peak GB']:.1f}"}
        rows.append([_number(value) for value in row.values()])
    return Table("One row a results file.", list(board.columns), rows, f"{len(rows)} results files")


def benchmark_rows(root: Path | None = None) -> list[dict]:
    """The rows of all contests' results (columns: benchmarks/harness.py), by file, in the order they were written."""
    folder = resolve_root(root) / "benchmarks" / "results"
    rows = [row for file in sorted(folder.glob("*.csv")) for row in csv.DictReader(file.open(newline=""))]
    return [row for row in rows if "implementation" in row]  # benchmarks/plan.py compares no implementations


def performance(root: Path | None = None) -> Table:
    """Each benchmark's case on each device: ours, the best peer, the ratio, memory, and the share of the floor."""
    rows, places = [], []
    cases: dict[tuple, list[dict]] = {}
    for row in benchmark_rows(root):
        cases.setdefault((row["operation"], row["case"], row["device"]), []).append(row)
    for (operation, case, device), measured in cases.items():
        by_speed = sorted(measured, key=_p50)
        ours = next(row for row in measured if row["implementation"] == "paperwalk")
        peers = [row for row in by_speed if not row["implementation"].startswith(("paperwalk", "floor"))]
        floor = next((row for row in by_speed if row["implementation"].startswith("floor")), None)
        best = peers[0]
        memory = f"{ours['peak_mb']} / {best['peak_mb']}" if ours["peak_mb"] else ""
        cells = [_ms(ours), f"{best['implementation']}: {_ms(best)}"]
        cells += [f"{float(best['ratio']):.2f}", memory, f"{_p50(floor) / _p50(ours):.0%}" if floor else ""]
        threads = f"{ours['threads']} thread{'s' * (ours['threads'] != '1')}"
        places.append(f"{device}, {threads}, {ours['date']}")
        rows.append([_td(text) for text in (operation, case, *cells)])
    title = "Medians; the ratio is the best peer's time over ours."
    head = ["operation", "case", "ours", "best peer", "ratio", "peak MB, ours / peer", "of the floor"]
    if len(set(places)) == 1:
        title += f" Measured on {places[0]}."
    else:
        head.append("where")
        rows = [[*row, _td(place)] for row, place in zip(rows, places)]
    return Table(title, head, rows, f"{len(rows)} benchmarks", stacks=True)


def fault_report(root: Path | None = None) -> dict:
    """What `make test-faults` wrote: date, device, counts ("full" or "reduced"), commit, and an entry a test."""
    return json.loads((resolve_root(root) / "book" / "reliability" / "report.json").read_text(encoding="utf-8"))


def faults(root: Path | None = None) -> Table:
    """One row a fault: what was injected, what happened and what was lost, as far as the report's tests show it."""
    report, rows = fault_report(root), []
    by_fault: dict[tuple, list[dict]] = {}
    for test in report["tests"]:
        by_fault.setdefault((test["fault"], test["happened"]), []).append(test)
    for (fault, happened), tests in by_fault.items():
        bad = [test for test in tests if test["outcome"] != "passed"]
        lost = "nothing" if not bad else f"not shown: {len(bad)} of {len(tests)} tests {bad[0]['outcome']}"
        names = sorted({test["test"].partition("[")[0] for test in tests})
        where = _HTML.lines([_HTML.breaking(re.split("(?<=[/_:])(?=[a-z])", name)) for name in names])
        cells = [_HTML.code(fault), _HTML.noted(_HTML.code(happened), where), lost]
        rows.append([*map(_td, cells), _number(f"{sum(test['seconds'] for test in tests):.1f}")])
    caption = f"One row a fault; {report['counts']} counts, {report['date']}, {report['device']}."
    head = ["fault", "what happened, and the test", "what was lost", "seconds"]
    return Table(caption, head, rows, f"{len(rows)} faults", stacks=True)


def _p50(row: dict) -> float:
    return float(row["p50_ms"])


def _ms(row: dict) -> str:
    return f"{_p50(row):.0f} ms" if _p50(row) >= 100 else f"{_p50(row):.3g} ms"


def _number(content: object) -> str:
    """A cell whose digits stand below each other."""
    return _td(content, "pw-number")


def _figure(row: dict) -> str:
    """The mean, and where there are several seeds, how they scatter."""
    if not row["n"]:
        return ""
    text, interval = f"{row['ours']:.3g}", ""
    if not math.isnan(row["sd"]):
        text += f" ± {row['sd']:.2g}, n = {row['n']}"
        interval = f"[{row['low']:.3g}, {row['high']:.3g}]"
    return _HTML.noted(text, interval)


def _verdict(row: dict) -> str:
    word = row["answer"]
    where = "" if row["n"] or "not_attempted" in row else " at this scale"
    return _HTML.verdict(word, f"{SIGNS[word]} {word}{'' if row['fresh'] else ' (stale)'}{where}")
