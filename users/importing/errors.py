"""What ends an import. Each message states the facts and what to do next."""

__all__ = [
    "BatchFailed",
    "Conflict",
    "ImportFailed",
    "UnreadableFile",
    "UnwritableFile",
    "WrongColumns",
]


class ImportFailed(Exception):
    """Base of these errors: nothing of the batch in hand is stored, all batches before it are."""


class UnreadableFile(ImportFailed):
    """The file cannot be opened, is empty, or is no text in UTF-8."""


class UnwritableFile(ImportFailed):
    """The file of the rejected lines cannot be written."""


class WrongColumns(ImportFailed):
    """The header names a column that is unknown, not importable or given twice, or lacks email."""


class Conflict(ImportFailed):
    """With on_conflict="error": an account with this email or id is stored already."""


class BatchFailed(ImportFailed):
    """A server failed or refused a batch."""
