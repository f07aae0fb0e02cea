"""How long it takes to understand an instruction.

The shipped text encoder reads single sentences of English, German, Spanish and Chinese, each for the first time but for
their words, on one thread: features, network, known words. Times are medians over sentences and rounds; processor
time, so that other work on the machine counts little. Loading the weights happens once.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

TEXTS = (
    "make the pedestrians easy to detect, it is night",
    "so that every pixel of the road can be labelled",
    "highlight what catches the eye",
    "for the operator's monitor, please keep it natural",
    "Finde alle Fußgänger und Radfahrer im Nebel",
    "que la imagen se vea natural para el operador",
    "让行人容易被检测到，现在是夜里",
    "bake a chocolate cake for my grandmother's birthday",
)
ROUNDS = 50

KEYS = {
    "instruct.encode_ms": "milliseconds from one sentence to its vector",
    "instruct.encode_ms_1000": "the same for a text of 1,000 characters, the longest that is read",
    "instruct.encode_ms_batch": "milliseconds a sentence, 64 at a time",
    "instruct.load_ms": "milliseconds to load the encoder, once",
    "instruct.weights_mb": "size of its weight file in MB",
    "instruct.parameters": "its parameters",
}


def run() -> dict[str, float]:
    """All figures of `KEYS`, measured in a process of its own with one thread."""
    command = [sys.executable, "-m", "benchmarks.bench_instruct"]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parents[1])
    figures: dict[str, float] = json.loads(answer.stdout)
    return figures


def measure() -> dict[str, float]:
    """The figures of `KEYS` in this process."""
    import torch

    from fuseloop.instructions.understanding import find_encoder, shipped_encoder

    torch.set_num_threads(1)
    began = time.process_time()
    encoder = shipped_encoder()
    loaded = time.process_time() - began
    long = " ".join(TEXTS * 10)[:1000]
    with torch.inference_mode():
        return {
            "instruct.encode_ms": milliseconds(lambda text: encoder.vectors(encoder.understand([text])), TEXTS),
            "instruct.encode_ms_1000": milliseconds(lambda text: encoder.understand([text]), [long]),
            "instruct.encode_ms_batch": milliseconds(lambda text: encoder.understand(TEXTS * 8), [""]) / 64,
            "instruct.load_ms": 1000 * loaded,
            "instruct.weights_mb": find_encoder("instructions").stat().st_size / 1e6,
            "instruct.parameters": sum(parameter.numel() for parameter in encoder.parameters()),
        }


def milliseconds(work, texts) -> float:  # noqa: ANN001
    """Median time of a call."""
    times = []
    for number in range(ROUNDS):
        for text in texts:
            began = time.process_time()
            work(text)
            if number:
                times.append(time.process_time() - began)
    return 1000 * statistics.median(times)


if __name__ == "__main__":
    print(json.dumps(measure()))
