"""Other text encoders, from a local folder or any callable; nothing is ever downloaded.

Their vectors go through a learned projection, which is trained with the fusion network. They judge nothing: whatever is
said gives a vector. To refuse what makes no sense, ask `understand` first.

>>> import torch
>>> letters = lambda texts: torch.tensor([[float(len(text)), float(text.count("e"))] for text in texts])
>>> encoder = wrap_encoder(letters, id="letters")
>>> encoder.encode(["detect people", ""]).shape
torch.Size([2, 64])
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fuseloop.errors import ConfigurationError, WeightsError

Embed = Callable[[list[str]], Tensor]
"""From N texts to N×width vectors."""


class ProjectedEncoder(nn.Module):
    """A text encoder of others, which stays as it is, and a projection that learns.

    An empty text gives zero.

    Args:
        embed: Makes N×`width` vectors of N texts; no gradient goes into it.
        width: Length of its vectors.
        id: What tells it from other encoders.
        dim: Length of the vectors that come out.
        seed: Of the first projection.
    """

    def __init__(self, embed: Embed, width: int, id: str, *, dim: int = 64, seed: int = 0) -> None:
        super().__init__()
        self.id = f"{id}:{dim}"
        self._embed = embed
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.projection: nn.Linear = nn.utils.skip_init(nn.Linear, width, dim, bias=False)  # type: ignore[no-untyped-call]
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            drawn = torch.randn(dim, width, generator=generator)
            self.projection.weight.copy_(drawn / (width * dim) ** 0.5)  # which gives vectors of length about one

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return self.projection.out_features

    def encode(self, texts: Sequence[str]) -> Tensor:
        """The vector of each text, N×d; zero for an empty one.

        Raises:
            ConfigurationError: What was plugged in gives something else than N×`width` finite numbers.
        """
        said = [index for index, text in enumerate(texts) if text.strip()]
        vectors = self.projection.weight.new_zeros(len(texts), self.dim)
        if not said:
            return vectors
        with torch.no_grad():
            raw = _checked(self._embed([texts[index] for index in said]), len(said), self.projection.in_features)
        projected: Tensor = self.projection(self.norm(raw.to(vectors)))
        return vectors.index_copy(0, torch.tensor(said, device=vectors.device), projected)


def wrap_encoder(embed: Embed, *, id: str, dim: int = 64, seed: int = 0) -> ProjectedEncoder:
    """Plugs in any callable that makes vectors of texts.

    Args:
        embed: From a list of N texts to an N×width tensor.
        id: What tells it from other encoders.
        dim: Length of the vectors that come out.
        seed: Of the projection.

    Raises:
        ConfigurationError: It gives something else.
    """
    with torch.no_grad():
        tried = _checked(embed(["detection"]), 1)
    return ProjectedEncoder(embed, tried.shape[1], id, dim=dim, seed=seed)


def load_encoder_folder(path: str | os.PathLike[str], *, dim: int = 64, seed: int = 0) -> ProjectedEncoder:
    """Plugs in the text encoder of a local folder: CLIP, sentence-transformers, or another that `transformers` reads.

    Needs the files that `save_pretrained` of `transformers` writes, tokenizer included. CLIP gives its projected text
    feature, sentence-transformers what its pooling says (mean or first token), others the mean over the tokens.

    Args:
        path: The folder.
        dim: Length of the vectors that come out.
        seed: Of the projection.

    Raises:
        WeightsError: There is no such folder, or it holds no text encoder that `transformers` can read.
    """
    folder = Path(path)
    if not os.path.isfile(folder / "config.json"):
        hint = "" if folder.is_dir() else "; encoders are read from local folders and never downloaded"
        raise WeightsError(f"{folder} is no folder of a text encoder: it has no config.json{hint}")
    from transformers import AutoModel, AutoTokenizer, CLIPTextModelWithProjection

    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type", "")
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        make: Any = CLIPTextModelWithProjection if kind in ("clip", "clip_text_model") else AutoModel
        model: Any = make.from_pretrained(folder, local_files_only=True).eval().requires_grad_(False)
        first = _takes_first_token(folder)
    except (OSError, ValueError, KeyError, ImportError, AttributeError) as error:
        raise WeightsError(f"{folder} holds no text encoder that transformers can read: {error}") from error

    def embed(texts: list[str]) -> Tensor:
        tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        outputs = model(**tokens)
        pooled: Tensor | None = getattr(outputs, "text_embeds", None)
        if pooled is not None:
            return pooled
        states: Tensor = outputs.last_hidden_state
        if first:
            return states[:, 0]
        mask = tokens["attention_mask"][..., None].to(states)
        means: Tensor = (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        return means

    checksum = zlib.crc32(b"".join(one.detach().numpy().tobytes() for one in list(model.parameters())[:2]))
    return wrap_encoder(embed, id=f"{kind or 'folder'}:{checksum:08x}", dim=dim, seed=seed)


def _takes_first_token(folder: Path) -> bool:
    """Whether a sentence-transformers folder pools by its first token."""
    pooling = folder / "1_Pooling" / "config.json"
    return pooling.is_file() and bool(json.loads(pooling.read_text(encoding="utf-8")).get("pooling_mode_cls_token"))


def _checked(vectors: Any, count: int, width: int | None = None) -> Tensor:
    if not isinstance(vectors, Tensor) or vectors.ndim != 2 or len(vectors) != count:
        found = tuple(vectors.shape) if isinstance(vectors, Tensor) else type(vectors).__name__
        raise ConfigurationError(f"a text encoder gives a tensor of one row for each of {count} texts, got {found}")
    if width is not None and vectors.shape[1] != width:
        raise ConfigurationError(f"the text encoder gave vectors of {vectors.shape[1]} numbers, before of {width}")
    if not bool(torch.isfinite(vectors).all()):
        raise ConfigurationError("the text encoder gave vectors that are not finite")
    return vectors.detach()
