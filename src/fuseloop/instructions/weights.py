"""Weight files of the text encoder.

A file carries in its metadata the `architecture`, the `options` of the encoder, the intents, attributes and languages
of its heads, its lists of words (`terms`, `function_words`, `other_words`, `attribute_words`) as JSON, and a
`description`. Numbers are in half precision.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import torch

from fuseloop.errors import WeightsError
from fuseloop.instructions.hashed import HashedEncoder
from fuseloop.instructions.intents import ATTRIBUTES, INTENTS, LANGUAGES
from fuseloop.weights.files import check_finite, mismatch, read_tensors, write_tensors

WORDS = ("terms", "function_words", "other_words")
_HEADS = {"intents": list(INTENTS), "attributes": list(ATTRIBUTES), "languages": list(LANGUAGES)}


def read_encoder(path: str | os.PathLike[str]) -> HashedEncoder:
    """Reads a weight file as `write_encoder` wrote it. Nothing in such a file can run code.

    Returns:
        The encoder in single precision, on the CPU and in evaluation mode.

    Raises:
        WeightsError: The file is missing, corrupt, of something else, or of other intents.
    """
    path = Path(path)
    metadata, tensors = read_tensors(path, pickled="only safetensors files are read")
    name = metadata.get("architecture", "nothing")
    if name != HashedEncoder.__name__:
        raise WeightsError(f"{path} holds no text encoder: its metadata name {name} as architecture")
    try:
        heads = {key: json.loads(metadata[key]) for key in _HEADS}
        options: dict[str, int] = json.loads(metadata["options"])
        words = [list(map(str, json.loads(metadata[key]))) for key in WORDS]
        with torch.random.fork_rng(devices=[]):  # its first weights are replaced
            encoder = HashedEncoder(words[0], words[1], words[2], json.loads(metadata["attribute_words"]), **options)
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise WeightsError(f"{path}: its metadata do not describe a text encoder ({error})") from error
    if heads != _HEADS:
        raise WeightsError(f"{path} was trained for other intents, attributes or languages: {heads}")
    if complaint := mismatch(encoder.state_dict(), tensors):
        raise WeightsError(f"{path} does not hold this text encoder: {complaint}")
    check_finite(path, tensors)
    encoder.load_state_dict(tensors)
    checksum = zlib.crc32("".join(metadata[key] for key in (*WORDS, "attribute_words")).encode())
    for key in sorted(tensors):
        checksum = zlib.crc32(tensors[key].numpy().tobytes(), checksum)
    encoder.id = f"hashed:{checksum:08x}"
    return encoder.eval()


def write_encoder(
    path: str | os.PathLike[str], encoder: HashedEncoder, *, description: str = "", overwrite: bool = False
) -> None:
    """Writes a weight file in half precision, aside first and then renamed.

    Args:
        path: Where to, with the suffix ``.safetensors``. Its folder must exist.
        encoder: The encoder, on any device.
        description: What these weights are, in one line.
        overwrite: Whether an existing file may be replaced.

    Raises:
        WeightsError: A weight is too large, the suffix is another, the file exists, or it cannot be written.
    """
    path = Path(path)
    tensors = {key: value.to(torch.float16) for key, value in encoder.state_dict().items()}
    check_finite(path, tensors)
    metadata = {
        "architecture": HashedEncoder.__name__,
        "options": json.dumps(encoder.options),
        **{key: json.dumps(names) for key, names in _HEADS.items()},
        **{key: json.dumps(sorted(getattr(encoder, key)), ensure_ascii=False) for key in WORDS},
        "attribute_words": json.dumps({k: sorted(v) for k, v in encoder.attribute_words.items()}, ensure_ascii=False),
        "description": description,
    }
    write_tensors(path, tensors, metadata, overwrite=overwrite)
