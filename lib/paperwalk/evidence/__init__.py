"""What runs measured, and what it says about the claims: results files, intervals, verdicts, the scoreboard."""

from paperwalk.evidence.claims import (
    ANSWERS,
    COLUMNS,
    KINDS,
    SCALES,
    VERDICTS,
    answer,
    claims,
    judged,
    meets,
    scoreboard,
    status,
    verdict,
)
from paperwalk.evidence.intervals import Summary, bootstrap, summarise, wilson
from paperwalk.evidence.records import SCHEMA, EvidenceError, commit, is_fresh, load, read, result_file, values, write

__all__ = [
    "ANSWERS",
    "COLUMNS",
    "KINDS",
    "SCALES",
    "SCHEMA",
    "VERDICTS",
    "EvidenceError",
    "Summary",
    "answer",
    "bootstrap",
    "claims",
    "commit",
    "is_fresh",
    "judged",
    "load",
    "meets",
    "read",
    "result_file",
    "scoreboard",
    "status",
    "summarise",
    "values",
    "verdict",
    "wilson",
    "write",
]
