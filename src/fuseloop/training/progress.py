"""Progress of a training on the console: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

SECONDS_BETWEEN_LINES = 15.0


class Reporter:
    """Shows where a training stands, with its rates and the time left at the present rate.

    Use it as a context manager, so that the bar is taken down whatever happens.

    Args:
        steps: Steps of the whole training.
        done: Steps already done when it starts.
        console: Where to write.
    """

    def __init__(self, steps: int, done: int, console: Console) -> None:
        self._steps = steps
        self._console = console
        self._bar = Progress(
            TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"),
            console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=steps, completed=done, text="")
        self._mark = (time.monotonic(), done)
        self._pairs = 0
        self._last_line = 0.0

    def __enter__(self) -> Reporter:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, step: int, pairs: int) -> None:
        """Counts a step."""
        self._pairs += pairs
        self._bar.update(self._task, completed=step)

    def show(self, step: int, losses: Mapping[str, float]) -> dict[str, float]:
        """Shows the losses, of which "loss" is the sum, with the rates since the last time, which it returns."""
        now = time.monotonic()
        began, first = self._mark
        seconds = max(now - began, 1e-9)
        rates = {"steps_per_second": (step - first) / seconds, "pairs_per_second": self._pairs / seconds}
        self._mark, self._pairs = (now, step), 0
        left = (self._steps - step) / max(rates["steps_per_second"], 1e-9)
        rest = f"{rates['steps_per_second']:.2f} steps/s  {rates['pairs_per_second']:.1f} pairs/s  {_span(left)} left"
        self._bar.update(self._task, completed=step, text=f"loss {losses['loss']:.4f}  {rest}")
        if not self._console.is_terminal and (now - self._last_line > SECONDS_BETWEEN_LINES or step == self._steps):
            self._last_line = now
            terms = "  ".join(f"{name} {value:.4f}" for name, value in losses.items())
            self.say(f"step {step}/{self._steps}  {terms}  {rest}")
        return rates

    def say(self, line: str) -> None:
        """Writes one line."""
        say(self._console, line)


def say(console: Console, line: str) -> None:
    """Writes one line as it is, however wide the terminal."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _span(seconds: float) -> str:
    """A length of time in words: "12 s", "3 min", "1 h 05 min"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
