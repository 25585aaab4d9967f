"""Parameters and runs of the book's notebooks.

A chapter is a notebook `book/<chapter>.ipynb` and a folder `book/<chapter>/` of the same name that holds its
parameters.yml, profiles, claims and results. Tags say what a notebook's cell is for: `parameters` (plain
assignments of the laptop's values), `setup` (imports and light definitions), `report` (only reads results
files and claims); all other code measures. `cost` and `calls` tell `paperwalk.costs` what a run takes. Functions
take the repository's root; the default is found as PAPERWALK_ROOT or the folders upwards say.
"""

from paperwalk.runs.execution import checkpoint_dir, execute, locked, progress, refuse_dry_run, work_dir
from paperwalk.runs.files import ROOT, Interrupted, RunError, cited, in_words, write_atomically
from paperwalk.runs.fingerprint import code_hash, identity, measured_hash
from paperwalk.runs.parameters import (
    PROFILES,
    ParameterError,
    chapters,
    check,
    defaults,
    has_cuda_device,
    notebook_path,
    profile_values,
    profiles,
    run_name,
    schema,
    validate,
)

__all__ = [
    "PROFILES",
    "ROOT",
    "Interrupted",
    "ParameterError",
    "RunError",
    "chapters",
    "check",
    "checkpoint_dir",
    "cited",
    "code_hash",
    "defaults",
    "execute",
    "has_cuda_device",
    "identity",
    "in_words",
    "locked",
    "measured_hash",
    "notebook_path",
    "profile_values",
    "profiles",
    "progress",
    "refuse_dry_run",
    "run_name",
    "schema",
    "validate",
    "work_dir",
    "write_atomically",
]
