"""What a sync did, in all and batch by batch."""

from dataclasses import dataclass

__all__ = ["Progress", "SyncResult"]


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


@dataclass(frozen=True)
class Progress:
    """What one batch did, and in words where the sync is: `news` where people want to know."""

    result: SyncResult
    where: str
    news: bool = False
