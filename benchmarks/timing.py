"""Fair timing: sides in turn (A B A B …), medians, and ratios taken pair by pair: a drifting machine cancels out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class SideFailed(Exception):
    """A side could not do what it was asked; the text is its own error."""


class Side:
    """A process that answers requests; see ``benchmarks.sides.protocol``.

    Args:
        module: the module to run.
        python: interpreter of its environment; None for this one.
    """

    def __init__(self, module: str, python: Path | None = None) -> None:
        self.name = module.rpartition(".")[2]
        self.peak = 0
        self._process = subprocess.Popen(
            [str(python or sys.executable), "-W", "ignore", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Ask and wait.

        Raises:
            SideFailed: it answered with an error, or ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **request}, default=str) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SideFailed(f"{self.name} ended with {self._process.wait()} during {do}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SideFailed(f"{self.name} {do}: {answer['error']}\n{answer['trace']}")
        self.peak = max(self.peak, answer["peak_bytes"])
        return answer

    def time(self, do: str, **request: Any) -> float:
        """Ask, and return the seconds the operation took inside the side."""
        return float(self.ask(do, **request)["seconds"])

    def close(self) -> None:
        """Let it end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Side:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass
class Rounds:
    """Seconds (or any cost) per side and round."""

    costs: dict[str, list[float]] = field(default_factory=dict)

    def median(self, name: str) -> float:
        """Median cost of a side."""
        return median(self.costs[name])

    def ratio(self, name: str, other: str) -> float:
        """Median over rounds of ``name``'s cost over ``other``'s in the same round."""
        return median(a / b for a, b in zip(self.costs[name], self.costs[other], strict=True))

    def spread(self, name: str) -> tuple[float, float]:
        """Least and greatest cost."""
        return min(self.costs[name]), max(self.costs[name])


def in_turn(
    sides: Mapping[str, Callable[[], float]], rounds: int, *, warmup: int = 1, say: Callable[[str], None] | None = None
) -> Rounds:
    """Run every side once per round, in turn, after uncounted rounds to warm up."""
    taken = Rounds({name: [] for name in sides})
    for number in range(-warmup, rounds):
        for name, run in sides.items():
            cost = run()
            if number >= 0:
                taken.costs[name].append(cost)
            if say is not None:
                say(f"{'warm-up' if number < 0 else f'round {number + 1}'}: {name} {cost:.3f} s")
    return taken
