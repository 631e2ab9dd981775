"""What the service counts, in the text format of Prometheus."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)


EVENTS = (
    *("rejected", "timeout", "disconnected", "reloaded", "reload_failed"),
    *("outage", "partial"),
)


class Histogram:
    """Counts values by upper bound."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self, name: str) -> Iterator[str]:
        """Write the histogram as Prometheus does: each bucket holds those below it too."""
        total = 0
        for bound, count in zip([*self.bounds, float("inf")], self.counts, strict=True):
            total += count
            label = "+Inf" if bound == float("inf") else f"{bound:g}"
            yield f'{name}_bucket{{le="{label}"}} {total}'
        yield f"{name}_sum {self.sum:.6f}"
        yield f"{name}_count {total}"


class Metrics:
    """Counters of one process. Each is written by one thread alone."""

    clock = staticmethod(time.monotonic)

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.seconds = Histogram(SECONDS)
        self.batch = Histogram(SIZES)
        self.batch_seconds = Histogram(SECONDS)
        self.events: Counter[str] = Counter(dict.fromkeys(EVENTS, 0))
        self.queries = 0

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        self.requests[route, status] += 1
        self.seconds.add(seconds)

    def batched(self, texts: int, seconds: float) -> None:
        """Count one batch of the worker."""
        self.batch.add(texts)
        self.batch_seconds.add(seconds)

    def text(self, gauges: dict[str, float], counters: dict[str, float]) -> str:
        """Write everything, with what others know: gauges and counters by name."""
        lines = ["# TYPE agentic_r_requests_total counter"]
        lines += [
            f'agentic_r_requests_total{{route="{route}",status="{status}"}} {count}'
            for (route, status), count in sorted(self.requests.items())
        ]
        lines.append("# TYPE agentic_r_events_total counter")
        lines += [
            f'agentic_r_events_total{{event="{name}"}} {count}'
            for name, count in sorted(self.events.items())
        ]
        for name, value in {"queries_total": self.queries, **counters}.items():
            lines += [f"# TYPE agentic_r_{name} counter", f"agentic_r_{name} {value:g}"]
        for name, value in gauges.items():
            lines += [f"# TYPE agentic_r_{name} gauge", f"agentic_r_{name} {value:g}"]
        for name, histogram in (
            ("request_seconds", self.seconds),
            ("batch_texts", self.batch),
            ("batch_seconds", self.batch_seconds),
        ):
            lines.append(f"# TYPE agentic_r_{name} histogram")
            lines += histogram.lines(f"agentic_r_{name}")
        return "\n".join(lines) + "\n"
