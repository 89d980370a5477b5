"""What a long run leaves out: counted, named, and too much of it ends the run."""

from __future__ import annotations

import json
from pathlib import Path

from sslbench.errors import SslbenchError
from sslbench.io import read_jsonl, write_jsonl

SHARE_MEANS_SOMETHING_FROM = 100  # cuts
NAMED_AT_MOST = 10_000  # by the length filter; a run's report is no second manifest


class SkipLog:
    """Counts and names the cuts that a long run left out, and ends the run when they are too many.

    Unreadable cuts (`add`) count against the limit; cuts outside the length filter (`leave_out`) were
    asked to be left out and do not. Both are rows `{"id", "reason"}` of one file.
    """

    def __init__(self, path: Path | str | None = None, limit_share: float = 0.01) -> None:
        self.path = Path(path) if path is not None else None
        self.limit_share = limit_share
        self.seen = 0
        self.skipped = 0
        self.left_out = 0
        """Cuts outside the length filter, once per pass over the data."""
        self.reasons: dict[str, str] = {}
        self._written: set[str] = set()
        if self.path is not None and self.path.is_file():
            rows = list(read_jsonl(self.path))
            write_jsonl(self.path, rows)  # without a torn last line, which the next name would be glued to
            self._written = {str(row["id"]) for row in rows}

    @property
    def count(self) -> int:
        """How many different cuts were skipped."""
        return len(self.reasons)

    def saw(self, cuts: int) -> None:
        """Count cuts that were tried, skipped ones included."""
        self.seen += cuts

    def add(self, cut_id: str, reason: str) -> None:
        """Name a skipped cut. Raises `SslbenchError` when the skipped share is above the limit."""
        self.skipped += 1
        self.reasons[cut_id] = reason
        self._name(cut_id, reason)
        if self.seen >= SHARE_MEANS_SOMETHING_FROM:
            self.check()

    def leave_out(self, cut_id: str, reason: str) -> None:
        """Name a cut outside the length filter (the first 10,000 of them) and count it."""
        self.left_out += 1
        if len(self._written) < NAMED_AT_MOST:
            self._name(cut_id, reason)

    def _name(self, cut_id: str, reason: str) -> None:
        if self.path is None or cut_id in self._written:
            return
        self._written.add(cut_id)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"id": cut_id, "reason": reason}, ensure_ascii=False) + "\n")

    def check(self) -> None:
        """Raise `SslbenchError` when the skipped share of the cuts seen so far is above the limit."""
        if self.skipped > self.limit_share * max(self.seen, self.skipped):
            cut_id, reason = next(iter(self.reasons.items()), ("-", "named before the run was resumed"))
            where = f"; all are named in {self.path}" if self.path else ""
            raise SslbenchError(
                f"{self.skipped} of {max(self.seen, self.skipped)} cuts could not be used, more than the "
                f"limit of {self.limit_share:.1%}, first {cut_id}: {reason}{where}; "
                "mend or remove them, or raise the limit"
            )
