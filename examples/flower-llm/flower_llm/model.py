"""The model, its text, and how it is trained."""

from collections.abc import Iterator
from pydoc_data.topics import topics  # the reference manual that comes with Python: half a megabyte of text

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

CHARACTERS = 128  # ASCII
LENGTH = 64  # characters that the model sees at a time
HEAD = 64  # width of an attention head


class Transformer(nn.Module):
    """Says which character comes next."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        if width < HEAD or width % HEAD:
            raise ValueError(f"the width must be a multiple of {HEAD}, got {width}")
        self.characters = embedding(CHARACTERS, width)
        self.positions = embedding(LENGTH, width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, width // HEAD, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CHARACTERS, bias=False)
        self.tie_weights()

    def tie_weights(self) -> None:
        """The output layer is the embedding."""
        self.head.weight = self.characters.weight

    def forward(self, text: Tensor) -> Tensor:
        length = text.shape[1]
        values = self.characters(text) + self.positions.weight[:length]
        future = nn.Transformer.generate_square_subsequent_mask(length)
        for layer in self.layers:
            values = layer(values, future, is_causal=True)
        return self.head(self.norm(values))

    def loss(self, windows: Tensor) -> Tensor:
        """How badly each window's characters are foreseen, in nats a character."""
        return cross_entropy(self(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())


def embedding(count: int, width: int) -> nn.Embedding:
    """An embedding that starts out uniform: to make a normal one on the meta device, torch imports 70 MiB of modules."""
    return nn.Embedding.from_pretrained(torch.empty(count, width).uniform_(-0.03, 0.03), freeze=False)


def text_of(node: int, nodes: int) -> Tensor:
    """The text of a node; that of node -1 is kept to evaluate with."""
    names = sorted(topics)
    kept = names[::8]
    own = kept if node < 0 else [name for name in names if name not in kept][node::nodes]
    text = "\n".join(topics[name] for name in own)
    return torch.tensor(list(text.encode("ascii", "replace")))


def batches(text: Tensor, count: int, size: int, seed: int) -> Iterator[Tensor]:
    """Batches of windows on a text, one character longer than what the model sees."""
    random = torch.Generator().manual_seed(seed)
    for _ in range(count):
        starts = torch.randint(len(text) - LENGTH, (size, 1), generator=random)
        yield text[starts + torch.arange(LENGTH + 1)]


def train(model: Transformer, text: Tensor, steps: int, batch: int, learning_rate: float, seed: int) -> float:
    """Train a model on a text by the signs of its gradients; returns the mean loss.

    Each parameter is updated as soon as it has its gradient: there is one gradient at a time, and no optimizer's state.
    """

    @torch.no_grad()
    def update(parameter: nn.Parameter) -> None:
        parameter.sub_(parameter.grad.sign_(), alpha=learning_rate)
        parameter.grad = None

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(update)
    total = 0.0
    for windows in batches(text, steps, batch, seed):
        loss = model.loss(windows)
        loss.backward()
        total += loss.item()
    return total / steps


@torch.inference_mode()
def evaluate(model: Transformer, text: Tensor) -> float:
    """The loss on a part of a text that is always the same."""
    return sum(model.loss(windows).item() for windows in batches(text, 8, 8, seed=0)) / 8
