"""The filter control of the ReST chapter: strict thresholds, counts, and both faces alike."""

import json
import re

import pytest
from ipywidgets import SelectionSlider

from paperwalk.papers.rest import controls

WIDGET = "application/vnd.jupyter.widget-view+json"
SENTENCES = [
    {
        "source": "Wie <geht> es?",
        "texts": ["How is it?", "How <is>?", "Is"],
        "human": [True, False, False],
        "rewards": {"quality": [0.5, 0.9, 0.2], "coverage": [0.1, 0.2, 0.3]},
        "gold": [100.0, 60.0, 20.0],
    },
    {
        "source": "Ja",
        "texts": ["Yes", "No"],
        "human": [True, False],
        "rewards": {"quality": [0.5, 0.5], "coverage": [0.5, 0.5]},
        "gold": [100.0, 0.0],
    },
]


def control(start=(1, "quality", 0.5)):
    return controls.filter_control(SENTENCES, [0.0, 0.2, 0.5, 1.0], start, "which pass")._repr_mimebundle_()


@pytest.mark.parametrize(
    ("tau", "passing", "said"),
    [
        (0.0, 3, "2 of 2 samples pass, mean chrF 40; all samples: 40"),
        (0.2, 2, "1 of 2 samples pass, mean chrF 60; all samples: 40"),  # strictly: .2 does not pass
        (0.5, 1, "1 of 2 samples pass, mean chrF 60; all samples: 40"),
        (1.0, 0, "0 of 2 samples pass; all samples: 40"),
    ],
)
def test_only_what_lies_strictly_above_passes_and_the_person_is_not_counted(tau, passing, said):
    picture = controls.filtered(SENTENCES[0], "quality", tau)
    assert picture.count('class="in"') == passing and picture.count('class="out"') == 3 - passing
    assert said in picture


def test_rows_fall_by_the_chosen_reward_and_text_is_escaped():
    picture = controls.filtered(SENTENCES[0], "coverage", 0)
    assert re.findall(r"<td>(0\.\d\d)</td>", picture) == ["0.30", "0.20", "0.10"]
    assert "Wie &lt;geht&gt; es?" in picture and "How &lt;is&gt;?" in picture


def test_page_and_widget_offer_every_choice():
    bundle = control()
    page = bundle["text/html"]
    data, _ = json.JSONDecoder().raw_decode(page[page.index('{"id"') :])
    assert data["values"] == [[1, 2], ["quality", "coverage"], [0.0, 0.2, 0.5, 1.0]]
    assert data["frames"][1][0][2] == controls.filtered(SENTENCES[1], "quality", 0.5)
    assert controls.filtered(SENTENCES[0], "quality", 0.5) in page
    from ipywidgets.widgets.widget import _instances

    box = _instances[bundle[WIDGET]["model_id"]]
    assert [each.value for each in box.children if isinstance(each, SelectionSlider)] == [1, "quality", 0.5]


def test_a_start_that_is_not_offered_is_refused():
    with pytest.raises(ValueError, match=r"τ = 0\.3: must be one of"):
        control((1, "quality", 0.3))
