"""Evidence as HTML tables: a chapter's claims, the scoreboard, where and when it was measured, benchmarks, faults."""

import csv
import hashlib
import html
import json
import math
import re

from paperwalk import evidence
from paperwalk.runs.files import resolve_root

# A sign besides the colour, so that a verdict can be told without seeing colours.
SIGNS = {"reproduced": "✔", "partly": "◐", "not reproduced": "✘", "not attempted": "–"}
SIGNS |= {"yes": "✔", "no": "✘", "undecided": "◐", "shown": "✔", "not shown": "✘"}

_CSS = """
.pw-table { overflow-x: auto; }
.pw-table table { border-collapse: collapse; font-size: .85em; width: 100%; }
.pw-table caption { caption-side: top; text-align: left; font-size: .95em; padding: .3em 0; }
.pw-table th, .pw-table td { padding: .35em .6em; text-align: left; vertical-align: top; }
.pw-table th, .pw-table td { border-bottom: 1px solid #8884; }
.pw-table td.pw-number { white-space: nowrap; font-variant-numeric: tabular-nums; }
.pw-table .pw-verdict { font-weight: 600; }
.pw-table { --good: #00704F; --part: #7A5900; --bad: #B04A00; --told: #005F96; }
html[data-theme="dark"] .pw-table, body[data-jp-theme-light="false"] .pw-table {
  --good: #2FC69B; --part: #E6B422; --bad: #FF8A4C; --told: #6CC0F0;
}
.pw-table .pw-reproduced { color: var(--good); }
.pw-table .pw-partly { color: var(--part); }
.pw-table .pw-not-reproduced { color: var(--bad); }
.pw-table .pw-yes, .pw-table .pw-no, .pw-table .pw-undecided { color: var(--told); }
.pw-table .pw-not-attempted { color: inherit; font-weight: 400; }
@media (max-width: 575px) {
  .pw-stacks :is(table, caption, tbody, tr, td) { display: block; }
  .pw-stacks thead tr { display: flex; gap: 1.4em; }
  .pw-stacks th:not([data-key]), .pw-stacks tr[hidden], .pw-stacks td:empty { display: none; }
  .pw-stacks th[data-key], .pw-stacks tbody td { border: 0; padding: .1em 0; }
  .pw-stacks tbody tr { border-bottom: 1px solid #8884; padding: .6em 0; }
  .pw-stacks td::before { font-weight: 600; }
}
"""


_CHOOSERS_CSS = """
.pw-table .pw-choosers { display: flex; flex-wrap: wrap; align-items: baseline; gap: .3em 1.4em; font-size: .9em; }
.pw-table .pw-choosers p { margin: 0; }
.pw-table select { font: inherit; margin-left: .4em; }
.pw-table th button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer;
  text-decoration: underline dotted; text-underline-offset: .2em; }
.pw-table th[aria-sort="ascending"] button::after { content: " \\25B2"; }
.pw-table th[aria-sort="descending"] button::after { content: " \\25BC"; }
.pw-table [hidden] { display: none; }
"""

# Rows carry the place of their value in each column that can be chosen: data-0, data-1, ...
_CHOOSERS_SCRIPT = """
(() => {
  const root = document.getElementById(ID), body = root.querySelector("tbody"), rows = [...body.rows];
  const said = root.querySelector("[role=status]"), selects = [...root.querySelectorAll("select")];
  const heads = selects.map((select) => root.querySelector(`th[data-key="${select.dataset.key}"]`));
  const place = (row, select) => row.dataset[select.dataset.key];
  function choose() {
    for (const row of rows) row.hidden = selects.some((select) => select.value && select.value !== place(row, select));
    said.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
  }
  function sort(at) {
    const down = heads[at].getAttribute("aria-sort") === "ascending", sign = down ? -1 : 1;
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[at].setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...rows.toSorted((a, b) => sign * (place(a, selects[at]) - place(b, selects[at]))));
  }
  heads.forEach((head, at) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.title = `sort by ${head.textContent}`;
    button.addEventListener("click", () => sort(at));
    head.replaceChildren(button);
  });
  selects.forEach((select) => select.addEventListener("change", choose));
  root.querySelector(".pw-choosers").hidden = false;
  choose();
})();
"""


class Table:
    """Shows as the HTML table given; `text` stands for it where no HTML is shown.

    choices: {title of a column: value of each row}. By these columns a reader can filter and sort the rows where
    scripts run; elsewhere the whole table stands. stacks: on a phone the cells of a row stand one below the other, all
    but the first with the title of their column.
    """

    def __init__(self, caption: str, head: list[str], rows: list[list[str]], text: str, choices=None, stacks=False):
        choices = choices or {}
        orders = {title: _in_order(column) for title, column in choices.items()}
        places = [[order.index(value) for value in choices[title]] for title, order in orders.items()]
        keys = {title: f' data-key="{key}"' for key, title in enumerate(orders)}
        titles = "".join(f'<th scope="col"{keys.get(title, "")}>{html.escape(title)}</th>' for title in head)
        body = ""
        for number, row in enumerate(rows):
            at = "".join(f' data-{key}="{column[number]}"' for key, column in enumerate(places))
            body += f"<tr{at}>{''.join(row)}</tr>"
        name = f"pw-table-{hashlib.sha256((titles + body).encode()).hexdigest()[:16]}"
        before, after = _choosers(name, orders) if orders else ("", "")
        caption = html.escape(caption)
        style = _CSS + (_titles_before_cells(name, head) if stacks else "")
        self.html = (
            f'<div class="pw-table{" pw-stacks" if stacks else ""}" id="{name}" tabindex="0" role="region" '
            f'aria-label="{caption}"><style>{style}</style>'
            f"{before}<table><caption>{caption}</caption><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"
            f"{after}</div>"
        )
        self.text = text

    def _repr_html_(self):
        return self.html

    def __repr__(self):
        return self.text


def _titles_before_cells(name, head) -> str:
    """CSS that writes the title of its column before each cell but a row's first, on a phone."""
    rules = (f'#{name} td:nth-child({n})::before {{ content: "{title}: "; }}' for n, title in enumerate(head[1:], 2))
    return "@media (max-width: 575px) {\n" + "\n".join(rules) + "\n}\n"


def _in_order(column) -> list[str]:
    """The different values of a column: verdicts from good to bad, any other as they come."""
    return [sign for sign in SIGNS if sign in column] or list(dict.fromkeys(column))


def _choosers(name, orders) -> tuple[str, str]:
    """What stands before and after a table whose rows can be chosen: a list for each column, and the script."""
    lists = ""
    for key, (title, order) in enumerate(orders.items()):
        named = enumerate(map(html.escape, order))
        options = "".join(f'<option value="{place}">{value}</option>' for place, value in named)
        options = f'<option value="">all</option>{options}'
        lists += f'<label>{html.escape(title)}<select data-key="{key}">{options}</select></label>'
    before = f'<style>{_CHOOSERS_CSS}</style><div class="pw-choosers" hidden>{lists}<p role="status"></p></div>'
    return before, f"<script>{_CHOOSERS_SCRIPT.replace('ID', json.dumps(name))}</script>"


def comparison(chapter: str, root=None) -> Table:
    """The chapter's claims: the paper's value, then ours and the verdict at each scale. Reads files only."""
    by_claim = {}
    for row in evidence.judged(chapter, root):
        by_claim.setdefault(row["id"], []).append(row)
    rows = []
    for scales in by_claim.values():
        first = scales[0]
        below = first.get("not_attempted") or f"{first['where']}; we asked for {first['criterion']}"
        claim = f"{html.escape(first['claim'])}<br><small>{html.escape(below)}</small>"
        at = {row["profile"]: f"{_figure(row)}<br>{_verdict(row)}" if row["n"] else _verdict(row) for row in scales}
        cells = [at.get(scale, "") for scale in evidence.SCALES]
        rows.append([_td(claim), _td(html.escape(first["paper"])), *(_td(cell, "pw-number") for cell in cells)])
    caption = "Mean over seeds ± standard deviation, n seeds, 95 % interval, and the verdict at each scale."
    return Table(caption, ["claim", "paper", *evidence.SCALES], rows, f"{len(rows)} claims of {chapter}", stacks=True)


def scoreboard(root=None) -> Table:
    """Every claim of every chapter at every scale, each with a link to where it is measured."""
    judged = [row for chapter in evidence.runs.chapters(root) for row in evidence.judged(chapter, root)]
    rows = []
    for row in judged:
        section = f"#{row['section']}" if "section" in row else ""
        claim = f'<a href="{row["chapter"]}.html{section}">{html.escape(row["claim"])}</a>'
        reason = f"<br><small>{html.escape(row['not_attempted'])}</small>" if "not_attempted" in row else ""
        cells = [
            _td(row["chapter"]),
            _td(claim + reason),
            _td(html.escape(row["paper"])),
            _td(_figure(row), "pw-number"),
        ]
        rows.append([*cells, _td(row["profile"]), _td(_verdict(row))])
    fields = {"chapter": "chapter", "scale": "profile", "verdict": "answer"}
    choices = {title: [row[field] for row in judged] for title, field in fields.items()}
    head = ["chapter", "claim", "paper", "ours", "scale", "verdict"]
    return Table("One row a claim and scale.", head, rows, f"{len(rows)} rows", choices, stacks=True)


def counts(root=None, scales=evidence.SCALES) -> Table:
    """How many claims have which verdict and how many questions which answer, by chapter and scale."""
    rows, n = [], 0
    for chapter in evidence.runs.chapters(root):
        judged = evidence.judged(chapter, root)
        n += len(judged)
        for scale in scales:
            told = [(row["kind"], row["answer"]) for row in judged if row["profile"] == scale]
            cells = [("claim", verdict) for verdict in evidence.VERDICTS]
            cells += [("question", answer) for answer in (*evidence.ANSWERS, "not attempted")]
            rows.append([_td(chapter), _td(scale), *(_td(str(told.count(cell)), "pw-number") for cell in cells)])
    words = [*evidence.VERDICTS, *evidence.ANSWERS, "not attempted"]
    head = ["chapter", "scale", *(f"{SIGNS[word]} {word}" for word in words)]
    caption = "Claims by verdict (the first four), and questions by answer (the last four)."
    return Table(caption, head, rows, f"{n} claims and questions at all scales")


def status(root=None) -> Table:
    """When, where and on what each committed results file was measured."""
    board = evidence.status(root)
    rows = []
    for row in board.to_dict("records"):
        row["commit"] = row["commit"][:7]
        row |= {"minutes": f"{row['minutes']:.1f}", "peak GB": f"{row['peak GB']:.1f}"}
        rows.append([_td(html.escape(str(value)), "pw-number") for value in row.values()])
    return Table("One row a results file.", list(board.columns), rows, f"{len(rows)} results files")


def benchmark_rows(root=None) -> list[dict]:
    """The rows of all contests' results (columns: benchmarks/harness.py), by file, in the order they were written."""
    folder = resolve_root(root) / "benchmarks" / "results"
    rows = [row for file in sorted(folder.glob("*.csv")) for row in csv.DictReader(file.open(newline=""))]
    return [row for row in rows if "implementation" in row]  # benchmarks/plan.py compares no implementations


def performance(root=None) -> Table:
    """Each benchmark's case on each device: ours, the best peer, the ratio, memory, and the share of the floor."""
    rows, places, cases = [], [], {}
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
        rows.append([_td(html.escape(text)) for text in (operation, case, *cells)])
    title = "Medians; the ratio is the best peer's time over ours."
    head = ["operation", "case", "ours", "best peer", "ratio", "peak MB, ours / peer", "of the floor"]
    if len(set(places)) == 1:
        title += f" Measured on {places[0]}."
    else:
        head.append("where")
        rows = [[*row, _td(html.escape(place))] for row, place in zip(rows, places)]
    return Table(title, head, rows, f"{len(rows)} benchmarks", stacks=True)


def fault_report(root=None) -> dict:
    """What `make test-faults` wrote: date, device, counts ("full" or "reduced"), commit, and an entry a test."""
    return json.loads((resolve_root(root) / "book" / "reliability" / "report.json").read_text(encoding="utf-8"))


def faults(root=None) -> Table:
    """One row a fault: what was injected, what happened and what was lost, as far as the report's tests show it."""
    report, by_fault, rows = fault_report(root), {}, []
    for test in report["tests"]:
        by_fault.setdefault((test["fault"], test["happened"]), []).append(test)
    for (fault, happened), tests in by_fault.items():
        bad = [test for test in tests if test["outcome"] != "passed"]
        lost = "nothing" if not bad else f"not shown: {len(bad)} of {len(tests)} tests {bad[0]['outcome']}"
        where = "<br>".join(sorted({html.escape(test["test"].partition("[")[0]) for test in tests}))
        shown = re.sub("([/_:])(?=[a-z])", r"\1<wbr>", where)  # long names may break
        fault, happened = (re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(each)) for each in (fault, happened))
        cells = [_td(fault), _td(f"{happened}<br><small>{shown}</small>"), _td(html.escape(lost))]
        rows.append([*cells, _td(f"{sum(test['seconds'] for test in tests):.1f}", "pw-number")])
    caption = f"One row a fault; {report['counts']} counts, {report['date']}, {report['device']}."
    head = ["fault", "what happened, and the test", "what was lost", "seconds"]
    return Table(caption, head, rows, f"{len(rows)} faults", stacks=True)


def _p50(row):
    return float(row["p50_ms"])


def _ms(row):
    return f"{_p50(row):.0f} ms" if _p50(row) >= 100 else f"{_p50(row):.3g} ms"


def _td(content, kind=""):
    return f'<td class="{kind}">{content}</td>' if kind else f"<td>{content}</td>"


def _figure(row):
    if not row["n"]:
        return ""
    text = f"{row['ours']:.3g}"
    if not math.isnan(row["sd"]):
        text += f" ± {row['sd']:.2g}, n = {row['n']}<br><small>[{row['low']:.3g}, {row['high']:.3g}]</small>"
    return text


def _verdict(row):
    word = row["answer"]
    where = "" if row["n"] or "not_attempted" in row else " at this scale"
    stale = "" if row["fresh"] else " (stale)"
    return f'<span class="pw-verdict pw-{word.replace(" ", "-")}">{SIGNS[word]} {word}{stale}{where}</span>'
