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
SIGNS = {"holds": "✔", "fails": "✘", "open": "◐", "not measured": "–"}

_HTML = macros("table.html")
_td = _HTML.td


class Table:
    """Shows as the HTML table given; `text` stands for it where no HTML is shown.

    head: titles of the columns; rows: lists of cells, each a <td> or <th> as HTML. choices: {title of a column: value
    of each row}. By these, and with `search` by words, a reader can filter the rows where scripts run, and sort them by
    those that are columns; elsewhere the whole table stands. The address keeps what was chosen. stacks: on a phone the
    cells of a row stand one below the other, all but the first with the title of their column.
    """

    def __init__(
        self,
        caption: str,
        head: Sequence[str],
        rows: Sequence[Sequence[str]],
        text: str,
        choices: Mapping[str, Sequence[str]] | None = None,
        stacks: bool = False,
        search: bool = False,
    ):
        choices = choices or {}
        orders = {title: _in_order(column) for title, column in choices.items()}
        places = [[orders[title].index(column[n]) for title, column in choices.items()] for n in range(len(rows))]
        keys = {title: key for key, title in enumerate(orders)}
        keyed = [(title, keys.get(title)) for title in head]
        name = f"pw-table-{digest(keyed, rows, orders)}"
        self.html = str(_HTML.table(name, caption, keyed, list(zip(places, rows)), orders, stacks, search))
        self.text = text

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def _in_order(column: Sequence[str]) -> list[str]:
    """The different values of a column: verdicts from good to bad, any other as they come."""
    return [sign for sign in SIGNS if sign in column] or list(dict.fromkeys(column))


def comparison(chapter: str, root: Path | None = None) -> Table:
    """The chapter's claims, headline claims first: the paper's value, ours beside the criterion, the verdict."""
    judged = _in_turn(evidence.judged(chapter, root))
    rows = []
    for row in judged:
        said = _HTML.noted(row["claim"], _said_by(row))
        rows.append([_td(said), _td(row["paper"]), _number(_figure(row)), _td(_verdict(row))])
    head = ["claim", "paper", "ours", "verdict"]
    return Table(_caption(judged), head, rows, f"{len(rows)} claims of {chapter}", stacks=True)


def _caption(judged):
    seeds, items = (max((row[key] for row in judged), default=0) for key in ("seeds", "items"))
    scales = dict.fromkeys(row["scale"] for row in judged if row["scale"])
    if not scales:
        return "Not measured by the present rules yet. Figures in italics are superseded: no verdict rests on them."
    text = f"Scale {', '.join(scales)}; at most {seeds} seeds and {items:,} items. Mean, 95 % interval, criterion."
    standing, of = evidence.together(judged)
    if of:
        text += (
            f" Of {of} decided headline rows with a p-value {standing} stand together (Benjamini and Hochberg, 5 %)."
        )
    return text


def scoreboard(root: Path | None = None) -> Table:
    """Every claim of every chapter, a row each, headline claims first, with a link to where it is measured."""
    judged = _in_turn([row for chapter in runs.chapters(root) for row in evidence.judged(chapter, root)])
    rows = []
    for row in judged:
        link = _HTML.link(row["chapter"], row["section"], row["claim"])
        told = _HTML.noted(link, f"{row['chapter']}, {_said_by(row)}")
        rows.append([_td(told), _td(row["paper"]), _number(_figure(row)), _td(_verdict(row))])
    choices = {
        "chapter": [row["chapter"] for row in judged],
        "source": [row["source"] for row in judged],
        "verdict": [row["verdict"] for row in judged],
        "headline": ["headline" if row["headline"] else "other" for row in judged],
    }
    head = ["claim", "paper", "ours", "verdict"]
    return Table("One row a claim.", head, rows, f"{len(rows)} claims", choices, stacks=True, search=True)


def _in_turn(judged):
    """Headline claims first, of the others those that have been measured."""
    return sorted(judged, key=lambda row: (not row["headline"], not row["seeds"]))


def _said_by(row):
    """Who says it, and where."""
    source = {"paper": "the paper", "critic": "a critic", "digest": "the digest", "ours": "our own"}
    said = ", ".join(filter(None, [source.get(row["source"], row["source"]), row["where"]]))
    return f"{said}; {row['not_measured']}" if "not_measured" in row else said


def counts(root: Path | None = None) -> Table:
    """How many claims have which verdict, by chapter: claims of the paper + all others."""
    rows, n = [], 0
    for chapter in runs.chapters(root):
        judged = evidence.judged(chapter, root)
        n += len(judged)
        of_paper, others = ([r["verdict"] for r in judged if (r["source"] == "paper") == own] for own in (True, False))
        told = (f"{of_paper.count(word)} + {others.count(word)}" for word in evidence.VERDICTS)
        rows.append([_td(chapter), *map(_number, told)])
    head = ["chapter", *(f"{SIGNS[word]} {word}" for word in evidence.VERDICTS)]
    return Table("Claims of the paper + all others, by verdict.", head, rows, f"{n} claims")


def verdicts(chapter: str, root: Path | None = None) -> str:
    """The chapter's claims as lines of plain text: verdict, value, criterion, and what would settle an open one."""
    lines = []
    for row in _in_turn(evidence.judged(chapter, root)):
        value = f"{row['ours']:.3g} [{row['low']:.3g}, {row['high']:.3g}]" if row["seeds"] else ""
        more = f"; {row['settled_by']} would settle it" if row["settled_by"] else ""
        seen = f" ({_seen(row)})" if row["seeds"] else ""
        lines.append(f"{row['verdict']:13}{row['id']:32}{value:28}{row['criterion']:16}{seen}{more}".rstrip())
    return "\n".join(lines)


def status(root: Path | None = None) -> Table:
    """When, where and on what each results file of the evidence was measured, and whether it is fresh."""
    board = evidence.status(root)
    rows = []
    for row in board.to_dict("records"):
        row["commit"] = row["commit"][:7]
        row |= {"minutes": f"{row['minutes']:.1f}", "peak GB": f"{row['peak GB']:.1f}"}
        rows.append([_number(value) for value in row.values()])
    caption = "One row a results file." if rows else "No evidence has been measured by the present rules yet."
    return Table(caption, list(board.columns), rows, f"{len(rows)} results files")


def freshness(root: Path | None = None) -> Table:
    """By chapter: seeds at each scale, those whose code, data and parameters are the present ones, and superseded."""
    rows = []
    for chapter in runs.chapters(root):
        cells = []
        for scale in evidence.SCALES:
            measured = evidence.load(chapter, scale, root)
            fresh = sum(evidence.is_fresh(run, root) for run in measured)
            cells.append(f"{fresh} of {len(measured)} seeds fresh" if measured else "not measured")
        old = evidence.superseded(chapter, root)
        cells.append(f"{len(old)} seeds, {old[0].file.parent.name}" if old else "none")
        rows.append([_td(text) for text in (chapter, *cells)])
    head = ["chapter", *evidence.SCALES, "superseded last"]
    return Table("Evidence by chapter and scale.", head, rows, f"{len(rows)} chapters", stacks=True)


def coverage(root: Path | None = None) -> Table:
    """How often intervals hold the truth in simulations: benchmarks/results/coverage.csv, written by its script."""
    file = resolve_root(root) / "benchmarks" / "results" / "coverage.csv"
    rows = list(csv.DictReader(file.open(newline="")))
    share = lambda text: _number(f"{100 * float(text):.1f}" if re.fullmatch(r"[\d.]+", text) else text)
    cells = [[_td(row["case"]), _td(row["items"]), *map(share, list(row.values())[2:])] for row in rows]
    caption = "Per cent of simulated experiments whose 95 % interval holds the truth, which is known there."
    return Table(caption, list(rows[0]), cells, f"{len(rows)} cases", stacks=True)


def benchmark_rows(root: Path | None = None) -> list[dict]:
    """The rows of all contests with peers (columns: benchmarks/harness.py), by file, in the order they were written."""
    folder = resolve_root(root) / "benchmarks" / "results"
    rows = [row for file in sorted(folder.glob("*.csv")) for row in csv.DictReader(file.open(newline=""))]
    return [row for row in rows if "implementation" in row and "pass" not in row]  # not those of plan.py and `fam_cost`


def performance(root: Path | None = None) -> Table:
    """Each benchmark's case on each device: ours, the best peer, the ratio, memory, and the share of the floor."""
    rows, places = [], []
    cases: dict[tuple, list[dict]] = {}
    for row in benchmark_rows(root):
        cases.setdefault((row["operation"], row["case"], row["device"]), []).append(row)
    for (operation, case, device), measured in cases.items():
        ours, by_speed = measured[0], sorted(measured, key=_p50)
        peers = [
            row for row in by_speed if row != ours and not row["implementation"].startswith(("paperwalk", "floor"))
        ]
        floor = next((row for row in by_speed if row["implementation"].startswith("floor")), None)
        cells = [_ms(ours), "", "", ""]
        if peers:  # else only a floor stands beside it
            best = peers[0]
            memory = f"{ours['peak_mb']} / {best['peak_mb']}" if ours["peak_mb"] else ""
            cells = [_ms(ours), f"{best['implementation']}: {_ms(best)}", f"{float(best['ratio']):.2f}", memory]
        cells.append(f"{_p50(floor) / _p50(ours):.0%}" if floor else "")
        places.append(f"{device}, {_threads(ours)}, {ours['date']}")
        rows.append([_td(text) for text in (operation, case, *cells)])
    title = "Medians; the ratio is the best peer's time over ours."
    head = ["operation", "case", "ours", "best peer", "ratio", "peak MB, ours / peer", "of the floor"]
    if len(set(places)) == 1:
        title += f" Measured on {places[0]}."
    else:
        head.append("where")
        rows = [[*row, _td(place)] for row, place in zip(rows, places)]
    return Table(title, head, rows, f"{len(rows)} benchmarks", stacks=True)


def fam_cost(root: Path | None = None) -> Table:
    """What TransformerFAM costs over BSWA of the same sizes: a row a size and device."""
    points: dict[tuple, dict] = {}
    passes: dict[str, None] = {}  # in the order of the file
    for row in _fam_cost_rows(root):
        sizes = tuple(f"{int(row[size]):,}" for size in ("batch", "tokens", "block", "F", "D", "layers"))
        points.setdefault((row["device"], sizes), {})[row["pass"], row["implementation"]] = row
        passes[row["pass"]] = None
    rows = []
    for (device, sizes), point in points.items():
        cells = [_number(size) for size in sizes]
        for each in passes:
            bswa, fam = point.get((each, "BSWA")), point.get((each, "TransformerFAM"))
            if bswa is None or fam is None:
                cells.append(_td(""))
                continue
            low, ratio, high = (float(fam[key]) for key in ("ratio_p20", "ratio", "ratio_p80"))
            noted = _HTML.noted(f"{ratio:.2f} [{low:.2f}, {high:.2f}]", f"{_ms(fam)} / {_ms(bswa)}")
            cells.append(_number(noted))
        of_any = next(iter(point.values()))
        rows.append([*cells, _td(_HTML.noted(device, f"{_threads(of_any)}, {of_any['date']}"))])
    said: dict[str, list[str]] = {}
    for each in passes:
        for device, (least, most) in fam_cost_spans(each, root).items():
            said.setdefault(device, []).append(f"{least:.2f} to {most:.2f} {each}")
    spans = "; ".join(f"{', '.join(of_device)} on {device}" for device, of_device in said.items())
    caption = "Time of TransformerFAM over that of BSWA: median of pairs, their 20th and 80th percentile; below, both "
    caption += f"medians. With a sixteenth of the block as F: {spans}."
    head = ["batch", "tokens", "block", "F", "D", "layers", *passes, "device"]
    return Table(caption, head, rows, f"{len(rows)} sizes", {"device": [device for device, _ in points]}, stacks=True)


def fam_cost_spans(passes: str, root: Path | None = None) -> dict[str, tuple[float, float]]:
    """{device: the least and the largest ratio of `fam_cost` where F is a sixteenth of the block}."""
    ratios: dict[str, list[float]] = {}
    for row in _fam_cost_rows(root):
        if row["pass"] == passes and 16 * int(row["F"]) == int(row["block"]) and row["implementation"] != "BSWA":
            ratios.setdefault(row["device"], []).append(float(row["ratio"]))
    return {device: (min(each), max(each)) for device, each in ratios.items()}


def _fam_cost_rows(root):
    """Those of benchmarks/results/fam_cost.csv, which benchmarks/fam.py writes."""
    file = resolve_root(root) / "benchmarks" / "results" / "fam_cost.csv"
    return list(csv.DictReader(file.open(newline="")))


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


def _threads(row: dict) -> str:
    return f"{row['threads']} thread{'s' * (row['threads'] != '1')}"


def _number(content: object) -> str:
    """A cell whose digits stand below each other."""
    return _td(content, "pw-number")


def _figure(row: dict) -> str:
    """The mean and its interval, drawn beside the criterion and in figures; else what superseded runs had."""
    if not row["seeds"]:
        before = "" if math.isnan(row["before"]) else f"{row['before']:.3g}"
        return _HTML.superseded(before, f"asked: {row['criterion']}") if row["criterion"] else ""
    interval = f"[{row['low']:.3g}, {row['high']:.3g}]"
    if math.isnan(row["low"]):
        interval = "exact" if row.get("exact") else "no interval"
    unit = f" {row['unit']}" if row["unit"] not in ("", "share") else ""
    asked = f"asked: {row['criterion']}; {row['scale']}, {_seen(row)}"
    return _HTML.measured(f"{row['ours']:.3g}{unit}", interval, asked, _places(row))


def _seen(row):
    of = f" of {row['of_seeds']}" if row["of_seeds"] > row["seeds"] else ""
    return f"{row['seeds']}{of} seeds" + f" x {row['items']:,} items" * (row["items"] > 1)


def _places(row: dict) -> dict[str, float]:
    """Where the mean, its interval and the part that meets the criterion lie on a line from 0 to 100."""
    least, most, _ = evidence.limits(row["criterion"])
    known = [x for x in (row["ours"], row["low"], row["high"], least, most) if math.isfinite(x)]
    left, right = min(known), max(known)
    room = 0.15 * (right - left) or 1.0
    at = lambda x: round(100 * (min(max(x, left - room), right + room) - left + room) / (right - left + 2 * room), 1)
    low, high = (row["ours"] if math.isnan(x) else x for x in (row["low"], row["high"]))
    return {"mean": at(row["ours"]), "low": at(low), "high": at(high), "from": at(least), "to": at(most)}


def _verdict(row: dict) -> str:
    word = row["verdict"]
    remarks = ["stale"] * (row["fresh"] is False) + ["criterion changed after the run"] * bool(row["changed"])
    text = f"{SIGNS[word]} {word}" + f" ({'; '.join(remarks)})" * bool(remarks)
    note = f"{row['settled_by']} would settle it" if row["settled_by"] else ""
    return _HTML.noted(_HTML.verdict(word, text), note)
