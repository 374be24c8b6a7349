"""The names that the code of an example may use, besides P and A."""

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db.models import (
    Avg,
    BooleanField,
    Case,
    CharField,
    Count,
    DateField,
    DateTimeField,
    DecimalField,
    DurationField,
    Exists,
    ExpressionWrapper,
    F,
    FilteredRelation,
    FloatField,
    IntegerField,
    Max,
    Min,
    OuterRef,
    Prefetch,
    Q,
    StdDev,
    Subquery,
    Sum,
    TextField,
    Value,
    Variance,
    When,
    Window,
)
from django.db.models.expressions import RawSQL
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import (
    MD5,
    Abs,
    Cast,
    Coalesce,
    Collate,
    Concat,
    ExtractMonth,
    ExtractYear,
    Greatest,
    Lag,
    Least,
    Left,
    Length,
    Lower,
    LPad,
    NullIf,
    Rank,
    Replace,
    Reverse,
    Right,
    Round,
    RowNumber,
    Sqrt,
    StrIndex,
    Substr,
    Trim,
    TruncDate,
    TruncDay,
    TruncMonth,
    TruncTime,
    Upper,
)

from tests.sharding.orm.data import ACTIVITY_IDS, PROFILE_IDS

__all__ = ["NAMES"]

NAMES: dict[str, Any] = {
    each.__name__: each
    for each in (
        *(Decimal, UUID, ZoneInfo, date, datetime, time, timedelta),
        *(Avg, Count, Max, Min, StdDev, Sum, Variance),
        *(
            Case,
            Exists,
            ExpressionWrapper,
            F,
            FilteredRelation,
            OuterRef,
            Prefetch,
            Q,
            RawSQL,
            Subquery,
            Value,
            When,
            Window,
        ),
        *(BooleanField, CharField, DateField, DateTimeField, DecimalField, DurationField),
        *(FloatField, IntegerField, TextField),
        *(
            Abs,
            Cast,
            Coalesce,
            Collate,
            Concat,
            ExtractMonth,
            ExtractYear,
            Greatest,
            KeyTextTransform,
        ),
        *(LPad, Lag, Least, Left, Length, Lower, MD5, NullIf, Rank, Replace, Reverse, Right, Round),
        *(RowNumber, Sqrt, StrIndex, Substr, Trim, TruncDate, TruncDay, TruncMonth, TruncTime),
        *(Upper,),
    )
} | {"ids": PROFILE_IDS, "activity_ids": ACTIVITY_IDS}
