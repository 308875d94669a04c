"""A time axis for bars on which nothing happens only briefly: the days that a run waited take a sliver, not the whole width."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

_GAP_SHARE: Final = 0.02
"""What a stretch in which no step ran takes of the axis at most."""
_LEFT: Final = " ▏▎▍▌▋▊▉█"


class Axis:
    """Maps wall time onto ``width`` cells."""

    def __init__(self, spans: Iterable[tuple[float, float]], width: int) -> None:
        """Lay out ``spans``, (start, end) in seconds."""
        self._width = width
        merged: list[list[float]] = []
        for start, end in sorted((min(span), max(span)) for span in spans):
            if merged and start <= merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], end)
            else:
                merged.append([start, end])
        worked = sum(end - start for start, end in merged)
        gap = worked * _GAP_SHARE
        self._times: list[float] = []
        self._at: list[float] = []
        position = 0.0
        for start, end in merged:
            if self._times:
                position += min(gap, start - self._times[-1])
            self._times += [start, end]
            self._at += [position, position + end - start]
            position += end - start
        self._length = position

    def place(self, when: float) -> float:
        """Return where a moment lies, from 0 to ``width``."""
        if not self._length:
            return 0.0
        index = bisect_right(self._times, when)
        if index == 0:
            return 0.0
        if index == len(self._times):
            return float(self._width)
        before, after = self._times[index - 1], self._times[index]
        low, high = self._at[index - 1], self._at[index]
        share = (when - before) / (after - before) if after > before else 0.0
        return (low + (high - low) * share) / self._length * self._width

    def indent(self, when: float) -> str:
        """Return the blanks that lead to a moment."""
        return " " * min(self._width - 1, int(self.place(when)))

    def draw(self, start: float, end: float) -> str:
        """Return blanks and a bar; what is too short to see is a hairline."""
        first, last = self.place(start), self.place(end)
        left = min(self._width - 1, int(first))
        eighths = max(1, round((last - first) * 8))
        return " " * left + "█" * (eighths // 8) + (_LEFT[eighths % 8] if eighths % 8 else "")
