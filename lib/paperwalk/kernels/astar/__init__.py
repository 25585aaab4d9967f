"""A* searches written out as token sequences, for mazes and Sokoban: the data of Searchformer (arXiv 2402.14083).

`naive` is the truth in plain Python; what is exported here runs compiled, on all cores, and gives the same tokens.
"""

from .api import Trace, Traces, astar, count_suboptimal, generate, search_lengths, solve, split
from .layouts import Maze, Sokoban, vocabulary
from .validity import FAULTS, Validity, is_valid_trace

__all__ = [
    "FAULTS",
    "Maze",
    "Sokoban",
    "Trace",
    "Traces",
    "Validity",
    "astar",
    "count_suboptimal",
    "generate",
    "is_valid_trace",
    "search_lengths",
    "solve",
    "split",
    "vocabulary",
]
