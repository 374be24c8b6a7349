"""What a sync did."""

from dataclasses import dataclass

__all__ = ["SyncResult"]


@dataclass(frozen=True)
class SyncResult:
    """Numbers of rows in analytics: written because new or changed, removed, found equal."""

    upserted: int = 0
    deleted: int = 0
    unchanged: int = 0

    def __add__(self, other: "SyncResult") -> "SyncResult":
        return SyncResult(
            self.upserted + other.upserted,
            self.deleted + other.deleted,
            self.unchanged + other.unchanged,
        )
