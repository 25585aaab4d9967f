"""Does `paperwalk plan` predict? Steps of training at two sizes each of two profiles, measured beside the count.

Time: CPU-seconds of one thread, which a busy machine stretches less than the clock; sizes take turns. A plan knows
no machine, so it predicts the ratio of two sizes, from operations alone: that holds where matrix products dominate
and are large enough to run at full speed. The first run of this script put that at a width of 256 and was wrong: from
256 to 512 the products themselves become faster. So that pair stays, to show by how much a plan is off below WIDE, and
the tolerance is held from there on. Memory: the peak of a fresh process beyond what it held before the model was built.
"""

import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks.harness import RESULTS, _status, machine, percentiles, write_rows
from paperwalk import costs, runs
from paperwalk.training import TrainConfig, train

ROUNDS, STEPS = 3, 3  # a size's turn is three steps, of which the first, that makes the moments, is not timed
TOLERANCE = 0.15  # of a ratio of times, and of memory; tests/benchmarks/test_plan.py holds the results to it
ONE_ROW = dict(text_tokens=256, prefix_tokens=206, batch=2, bf16=False)
WIDE = 512  # the least width from which times are predicted within the tolerance
SIZES = {
    "gpu": [dict(batch=4, bf16=False, d_model=width) for width in (256, WIDE, 768)],
    "paper": [ONE_ROW | dict(n_layers=layers) for layers in (1, 2)],  # the paper's width, 2,048
}
CASES = [(profile, changed) for profile, sizes in SIZES.items() for changed in sizes]


def training_of(profile, changed):
    """The goldfish chapter's training at this scale, and its batches."""
    values = runs.profile_values("goldfish", profile) | changed
    training = costs.training_of("goldfish", values)
    return training, batches_of(training, values["vocab_size"])


def batches_of(training, vocabulary):
    """step -> its one batch of random token ids."""

    def batch(step):
        g = torch.Generator().manual_seed(step)
        return [tuple(ids.random_(vocabulary, generator=g) for ids in training.inputs(training.rows, True))]

    return batch


def steps_of(training, model, batches, steps=STEPS):
    """Trains for a turn; CPU-seconds of each step but the first."""
    marks = []

    def marked(step):
        marks.append(time.process_time())
        return batches(step)

    loss = lambda model, batch: (training.loss(model, *batch), batch[0].numel())
    train(model, marked, loss, TrainConfig(steps, 1e-4), progress=False)
    return [end - start for start, end in zip(marks[1:], [*marks[2:], time.process_time()])]


def times():
    """CPU-seconds of all timed steps of each case; the cases take turns."""
    trainings, batches = zip(*(training_of(*case) for case in CASES))
    models, seconds = [t.build() for t in trainings], [[] for _ in CASES]
    for turn in range(ROUNDS):
        for i in [*range(turn % len(CASES), len(CASES)), *range(turn % len(CASES))]:  # nobody always goes first
            seconds[i] += steps_of(trainings[i], models[i], batches[i])
    return seconds


def peak_here(profile, changed):
    """MB that training takes at most, beyond what this process held before."""
    small, batches = training_of("ci", {})
    steps_of(small, small.build(), batches)  # loads libraries
    training, batches = training_of(profile, changed)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _status("VmRSS")
    steps_of(training, training.build(), batches, 2)  # the second has all there is: moments, gradients, activations
    return (_status("VmHWM") - before) * 1024 / 1e6


def peak(case, **environment):
    """`peak_here` of a fresh process with these environment variables."""
    command = [sys.executable, "-m", "benchmarks.plan", json.dumps(case)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1])


def main():
    counts = [costs.count(t, t.rows, longest=True) for t, _ in (training_of(*case) for case in CASES)]
    seconds, rows = times(), []
    for i, (case, count) in enumerate(zip(CASES, counts)):
        profile, changed = case
        p20, p50, p80 = percentiles(seconds[i])
        row = dict(profile=profile, changed=json.dumps(changed), parameters=count.parameters, gflop=count.flops / 1e9)
        row |= dict(p20_seconds=p20, p50_seconds=p50, p80_seconds=p80, steps=len(seconds[i]))
        if i and profile == CASES[i - 1][0]:  # a larger size of the same profile
            expected = count.flops / counts[i - 1].flops
            found = p50 / statistics.median(seconds[i - 1])
            row |= dict(time_predicted=expected, time_measured=found, time_error=expected / found - 1)
        # The C library keeps what is freed in pieces of up to 32 MB; told not to, a process holds what is in use.
        exact, kept = peak(case, MALLOC_MMAP_THRESHOLD_="65536"), peak(case)
        expected = count.peak_bytes / 1e6
        row |= dict(memory_predicted=expected, memory_measured=exact, memory_error=expected / exact - 1)
        row |= dict(memory_allocator_keeps=kept - exact)
        rows.append({name: f"{v:.4g}" if isinstance(v, float) else v for name, v in row.items()} | machine())
        print(rows[-1], flush=True)
    write_rows(RESULTS / "plan.csv", list(rows[1]), rows)  # the second has all columns


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) > 1:
        print(peak_here(*json.loads(sys.argv[1])))
    else:
        main()
