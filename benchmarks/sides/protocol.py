"""How a side talks: one JSON request a line in, one JSON answer a line out. Standard library only: peers use it."""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

Verb = Callable[..., dict[str, Any]]


def peak_bytes() -> int:
    """The most memory this process ever held resident, in bytes."""
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


class Clock:
    """``with Clock() as clock: ...`` and then ``clock.seconds``."""

    seconds = 0.0

    def __enter__(self) -> Clock:
        gc.collect()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._start


def serve(verbs: dict[str, Verb]) -> None:
    """Answer requests until the input ends. What libraries print goes to the standard error: lines stay ours."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = verbs[request.pop("do")](**request)
            answer["peak_bytes"] = peak_bytes()
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)
