"""The SQL compilers of this backend: Django's, with a place where a fan-out can answer instead.

Writes first ask whether a transaction is open on another shard.

`Query.get_aggregation` and its kin build a query, run it and convert what comes back, in one go.
Inside `answering`, the one row that such a method waits for is fetched by the caller's function.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from django.db.backends.postgresql import compiler
from django.db.models.sql.constants import GET_ITERATOR_CHUNK_SIZE, MULTI, SINGLE

from sharding.transactions import require_open_shard

__all__ = [
    "SQLAggregateCompiler",
    "SQLCompiler",
    "SQLDeleteCompiler",
    "SQLInsertCompiler",
    "SQLUpdateCompiler",
    "answering",
]

Row = Sequence[Any]
Answer = Callable[["SQLCompiler"], Row | None]

_answer: ContextVar[Answer | None] = ContextVar("answer", default=None)


@contextmanager
def answering(answer: Answer) -> Iterator[None]:
    """Let `answer(compiler)` give the next single row, instead of the compiler's own connection."""
    token = _answer.set(answer)
    try:
        yield
    finally:
        _answer.reset(token)


class _Answered:
    def execute_sql(
        self,
        result_type: str = MULTI,
        chunked_fetch: bool = False,
        chunk_size: int = GET_ITERATOR_CHUNK_SIZE,
    ) -> Any:
        if result_type == SINGLE and (answer := _answer.get()):
            return answer(self)  # type: ignore[arg-type]
        return super().execute_sql(result_type, chunked_fetch, chunk_size)


class SQLCompiler(_Answered, compiler.SQLCompiler):
    """Compiles SELECT."""


class SQLAggregateCompiler(_Answered, compiler.SQLAggregateCompiler):
    """Compiles an aggregate over a subquery."""


class _Writing:
    def execute_sql(self, *args: Any, **kwargs: Any) -> Any:
        require_open_shard(self.using)
        return super().execute_sql(*args, **kwargs)


class SQLInsertCompiler(_Writing, compiler.SQLInsertCompiler):
    """Compiles INSERT."""


class SQLUpdateCompiler(_Writing, compiler.SQLUpdateCompiler):
    """Compiles UPDATE."""


class SQLDeleteCompiler(_Writing, compiler.SQLDeleteCompiler):
    """Compiles DELETE."""
