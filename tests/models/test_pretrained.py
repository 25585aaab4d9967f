"""SmolLM2 in our decoder is the model that transformers reads from the same file."""

import os

import pytest
import torch

from paperwalk.data.fetch import CorpusError
from paperwalk.generation import generate
from paperwalk.models import pretrained

pytestmark = pytest.mark.full

TEXT = (
    "The Apollo program landed twelve people on the Moon between 1969 and 1972; "
    "its first crewed landing, Apollo 11, touched down in the Sea of Tranquility."
)


@pytest.fixture(scope="module")
def smollm2():
    try:
        return pretrained.load_smollm2()
    except CorpusError as error:
        if os.environ.get("PAPERWALK_STRICT") == "1":
            raise
        pytest.skip(str(error))


def test_logits_equal_those_of_transformers(smollm2):
    from transformers import AutoModelForCausalLM

    model, tokenizer = smollm2
    file = pretrained.unpacked()
    theirs = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    with torch.no_grad():
        torch.testing.assert_close(model(ids), theirs(ids).logits, rtol=0, atol=1e-4)


def test_knows_english_and_continues_from_the_cache(smollm2):
    model, tokenizer = smollm2
    prompts = [
        tokenizer(text, return_tensors="pt").input_ids[0]
        for text in ("The capital of France is the city of", "Monday, Tuesday, Wednesday,")
    ]
    first, second = (tokenizer.decode(row) for row in generate(model, prompts, 3))
    assert first.strip().startswith("Paris")
    assert "Thursday" in second


def test_size_and_dtype(smollm2):
    model, _ = smollm2
    assert model.n_parameters == 134_515_008
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
