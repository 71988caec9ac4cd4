"""A listener to progress, for tests."""

from __future__ import annotations


class Shown:
    """Keeps what it is told; raises KeyboardInterrupt, as Ctrl-C does, when something is told for the n-th time."""

    def __init__(self, stop_at: int | None = None, doing: str = "") -> None:
        self.shares: list[float] = []
        self.left: list[float | None] = []
        self.doing: list[str] = []
        self.lines: list[str] = []
        self.stop_at, self.stop_doing = stop_at, doing

    def show(self, share: float, left: float | None, doing: str) -> None:
        self.shares.append(share)
        self.left.append(left)
        self.doing.append(doing)
        if self.stop_at is not None and sum(self.stop_doing in told for told in self.doing) >= self.stop_at:
            raise KeyboardInterrupt

    def say(self, line: str) -> None:
        self.lines.append(line)
