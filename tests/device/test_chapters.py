"""The chapters' own losses, batches and measurements on the pretended device, at ci scale.

Left out, because the pretended device has no addresses: checkpoints. Autocast to bfloat16 is not shown either.
"""

import pytest

pytestmark = pytest.mark.full

GOLDFISH = {"hash": {}, "standard": {"strategy": None}, "released": {"strategy": "released-hash"}}
GOLDFISH |= {"random": {"strategy": "random"}, "edited": {"canaries": "edited", "edit_every": 10}}
SEARCHFORMER = {"trace": {}, "plan": {"kind": "plan"}, "swapped": {"kind": "swapped"}}
FAM = {"penalty": {}, "no-penalty": {"penalty": 0}, "rmt": {"kind": "rmt"}, "full": {"kind": "full", "penalty": 0}}
FAM |= {"rsp": {"rsp_from": 0.0, "penalty": 0}, "segment": {"memory_segments": 1}}
FAM |= {"bswa": {"fam_length": 0, "memory_segments": 2, "penalty": 0}}
OPTIONS = {"fam_residual": False, "separate_projections": True, "static_query": True, "stop_gradient": "feedback"}
FAM |= {name: {"options": ((name, value),)} for name, value in OPTIONS.items()}
FAM |= {"xl": {"fam_length": 0, "memory_segments": 1, "penalty": 0, "options": (("stop_gradient", "blocks"),)}}
ARMS = {"goldfish": GOLDFISH, "searchformer": SEARCHFORMER, "rest": {"cloned": {}}, "transformer_fam": FAM}


@pytest.mark.parametrize(("chapter", "arm"), [(chapter, arm) for chapter, arms in ARMS.items() for arm in arms])
def test_a_training_step_waits_once(apart, chapter, arm):
    function = "cloned" if chapter == "rest" else "trained"
    assert apart("chapter_steps", chapter, ARMS[chapter][arm], function) == [1, 1, 1]


@pytest.mark.parametrize("segments", [0, 1])
def test_a_step_on_books_waits_once(apart, segments):
    assert apart("chapter_steps", "transformer_fam", {"memory_segments": segments}, "read_books") == [1, 1, 1]


@pytest.mark.parametrize("chapter", ["goldfish", "fam", "searchformer", "rest"])
def test_measurements(apart, chapter):
    apart(f"{chapter}_measures")


def test_these_tests_can_fail(apart):
    """A batch that stays on the host, and gradients by distance of a model that stays on the device, are found."""
    said = apart("forgotten")
    assert len(said) == 2 and all("on the same device" in each for each in said)
