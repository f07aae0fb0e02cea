"""How many synthetic pairs one core draws in a second, labels included.

python -m benchmarks synthetic
"""

from __future__ import annotations

import time

import cv2

from fuseloop.datasets.synthetic import generate

SCENES = 40
ROUNDS = 5


def run() -> dict[str, float]:
    """Pairs a second of 320×240 and of 640×480: the best of five rounds over the same 40 scenes.

    One thread draws, and its own processor time counts, so that other work on the machine does not.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return {
            "synthetic.pairs_per_second": _rate(240, 320),
            "synthetic.pairs_per_second_640x480": _rate(480, 640),
        }
    finally:
        cv2.setNumThreads(threads)


def _rate(height: int, width: int) -> float:
    generate(0, height, width)  # makes the tables that all scenes share
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        for seed in range(SCENES):
            generate(seed, height, width)
        best = min(best, time.process_time() - start)
    return SCENES / best


if __name__ == "__main__":
    print(run())
