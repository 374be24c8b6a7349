"""How the code of an example is written: each symbol's choices, the simplest first.

In braces stands another symbol; `other_…` is one of the other model's.
"""

from tests.sharding.orm.data import AMOUNTS, COUNTRIES, KINDS, MOMENTS, NAMES

__all__ = ["ACTIVITY", "PROFILE"]

Grammar = dict[str, list[str]]

_EXPRESSIONS: Grammar = {
    "text": [
        *("Lower({text})", "Upper({text})", "Trim({text})", "Reverse({text})", "MD5({text})"),
        *("Left({text}, 2)", "Right({text}, 1)", "Substr({text}, 2, 3)"),
        'LPad({text}, 4, Value("é"))',
        'Replace({text}, Value("a"), Value("%"), output_field=TextField())',
        'Concat({text}, Value("-"), {text}, output_field=TextField())',
        "Coalesce({text}, {text}, output_field=TextField())",
        "Greatest({text}, {text}, output_field=TextField())",
        "Least({text}, {text}, output_field=TextField())",
        'NullIf({text}, Value(""), output_field=TextField())',
        "NullIf({text}, {text}, output_field=TextField())",
        "Case(When({condition}, then={text}), output_field=TextField())",
        'Case(When({condition}, then={text}), default=Value("~"), output_field=TextField())',
        "Cast({integer}, TextField())",
        'Collate({text}, "C")',
    ],
    "integer": [
        *("Length({text})", 'StrIndex({text}, Value("a"))', "Abs({integer})"),
        *("ExtractYear({moment})", "ExtractMonth({moment})"),
        *("({integer} + {integer})", "({integer} * Value(3))", "NullIf({integer}, Value({n}))"),
        "Case(When({condition}, then={integer}), output_field=IntegerField())",
        "Coalesce({integer}, Value(-1))",
    ],
    "float": [
        *("Cast({integer}, FloatField())", "Cast({decimal}, FloatField())"),
        "Sqrt(Abs({float}))",
        "({float} / Value(3.0))",
        "NullIf({float}, Value(0.0))",
        'Case(When({condition}, then=Cast(Value("NaN"), FloatField())), default={float})',
        'Case(When({condition}, then=Cast(Value("Infinity"), FloatField())), default={float})',
    ],
    "decimal": [
        "Cast({integer}, DecimalField(max_digits=20, decimal_places=3))",
        '({decimal} + Value(Decimal("0.125")))',
        '({decimal} / Value(Decimal("3")))',
        "({decimal} * {decimal})",
        "Round({decimal}, precision=1)",
        'NullIf({decimal}, Value(Decimal("1.5")))',
        "Case(When({condition}, then={decimal}), output_field=DecimalField())",
    ],
    "moment": [
        "TruncMonth({moment}, output_field=DateTimeField())",
        'TruncDay({moment}, tzinfo=ZoneInfo("Europe/Zurich"))',
        "({moment} + Value(timedelta(hours=3)))",
        "NullIf({moment}, Value({when}))",
    ],
    "truth": [
        "ExpressionWrapper({condition}, output_field=BooleanField())",
        "Case(When({condition}, then=True), output_field=BooleanField())",
    ],
    "orderable": [
        *("{text}", "{text}", "{text}", "{integer}", "{integer}", "{float}", "{decimal}"),
        *("{moment}", "TruncDate({moment})", "TruncTime({moment})"),
    ],
    "scalar": ["{orderable}", "{orderable}", "{orderable}", "{truth}", "{other}"],
    "condition": [
        *("~{condition}", "({condition} & {condition})", "({condition} | {condition})"),
        "({condition} ^ {condition})",
    ],
    "filter": [
        *("{condition}", "{condition}", "{condition}", "~{filter}"),
        *("({filter} & {filter})", "({filter} | {filter})"),
    ],
    "filters": [
        *("", ".filter({filter})", ".exclude({filter})", ".exclude({condition})"),
        ".filter({filter}).filter({filter})",
    ],
    "annotations": [
        *("", ".annotate(x={scalar})", ".alias(x={scalar}).filter(x__isnull=False)"),
        *(
            ".annotate(x={text}).filter(x__gt={name})",
            ".annotate(x={integer}).filter(x__in=[1, 2])",
        ),
        *(".annotate(x={text}, y={text}).exclude(x=F('y'))", ".annotate(x={scalar}, y={scalar})"),
    ],
    "number": ["{integer}", "{decimal}", "{decimal}", "{measure}"],
    # Floats among which sums lose no digits.
    "measure": [
        "Sqrt(Abs({measure}))",
        "NullIf({measure}, Value(0.5))",
        'Case(When({condition}, then=Cast(Value("NaN"), FloatField())), default={measure})',
        'Case(When({condition}, then=Cast(Value("Infinity"), FloatField())), default={measure})',
    ],
    "exact": [
        *('Count("pk")', 'Count("*")', 'Count("pk", filter={condition})', "Count({scalar})"),
        *("Sum({integer})", "Sum({decimal})", "Sum({decimal}, filter={condition})"),
        *("Sum({integer}, default=7)", "Sum({decimal}, default=0, filter={condition})"),
        *(
            "Sum({span})",
            "Max({span})",
            "Min({orderable})",
            "Max({orderable})",
            "Max({text}, filter={condition})",
        ),
        'Max({text}, default=Value("none"), filter={condition})',
        "Coalesce(Min({integer}), 5)",
        *("Avg({decimal})", "Avg({decimal}, filter={condition}, default=1)"),
    ],
    "whole": ["{exact}", "{exact}", "{exact}", "Count({text}, distinct=True)"],
    "aggregate": [
        *("{exact}", "{exact}", "{exact}", "Sum({measure})", "Min({measure})"),
        *("Avg({number})", "Avg({integer}, filter={condition}, default=1)", "Avg({measure})"),
        *("StdDev({number})", "StdDev({decimal}, sample=True, filter={condition})"),
        *("Variance({number})", "Variance({decimal}, sample=True)", "Variance({integer})"),
        "Variance({measure}, sample=True)",
    ],
    "term": [
        *("{field}", "{field}", "{field}", "{scalar}.asc()", "{scalar}.desc()"),
        *("{scalar}.asc(nulls_first=True)", "{scalar}.desc(nulls_last=True)"),
        "F({column}).desc(nulls_first=True)",
    ],
    "terms": ["{term}", "{term}", "{term}, {term}", "{term}, {term}, {term}"],
    "slice": [
        "",
        "",
        "[:5]",
        "[3:]",
        "[2:9]",
        "[:1]",
        "[0:0]",
        "[4:4]",
        "[50:]",
        "[7:1000]",
        "[::3]",
    ],
    "cut": ["", "[:5]", "[3:]", "[2:9]", "[:1]", "[0:0]", "[50:]", "[7:1000]"],
    "n": [*"01235"],
    "size": ["7", "100", "2000"],
    "bool": ["True", "False"],
    "name": [repr(name) for name in NAMES],
    "letter": ['"a"', '"A"', '"é"', '"%"', '"_"', '"\\\\"', '""', '"ss"', '"😀"'],
    "country": [repr(country) for country in COUNTRIES],
    "kind": [repr(kind) for kind in KINDS],
    "amount": [repr(amount) for amount in AMOUNTS],
    "when": [f'datetime.fromisoformat("{moment.isoformat()}")' for moment in MOMENTS],
}

_PROFILE: Grammar = {
    "source": ["P"],
    "text": [
        *('F("display_name")', 'F("country")', 'F("bio")', 'F("plan")'),
        'KeyTextTransform("nick", "settings")',
    ],
    "integer": [
        'Length("bio")',
        'Cast(KeyTextTransform("level", "settings"), IntegerField())',
        'Subquery({tied}.values("profile").annotate(n=Count("pk")).values("n"))',
    ],
    "float": ['Cast(KeyTextTransform("score", "settings"), FloatField())'],
    "decimal": [
        'Cast(Length("display_name"), DecimalField(max_digits=9, decimal_places=2))',
        'Subquery({tied}.order_by("amount", "pk").values("amount")[:1])',
    ],
    "moment": [
        *('F("created_at")', 'F("updated_at")'),
        'Subquery({tied}.order_by("-occurred_at", "pk").values("occurred_at")[:1])',
    ],
    "other": ['F("user_id")', '(F("updated_at") - F("created_at"))'],
    "window": [
        'Window(RowNumber(), partition_by="user_id", order_by=["created_at"])',
        'Window(Max("display_name"), partition_by=[F("country"), F("pk")])',
        'Window(Count("pk"), partition_by="pk")',
        'Window(Count("pk"), partition_by=["pk", "activities__profile"])',
    ],
    "tied": ['A.filter(profile=OuterRef("pk"))', 'A.filter(profile_id=OuterRef("user_id"))'],
    "field": [
        *('"country"', '"-country"', '"display_name"', '"-display_name"', '"plan"', '"bio"'),
        *('"created_at"', '"-created_at"', '"-updated_at"', '"user_id"'),
    ],
    "column": ['"display_name"', '"created_at"', '"country"', '"settings__nick"'],
    "loading": ["", "", "", '.only("bio")', '.defer("settings", "bio")', ".defer(None)"],
    "condition": [
        *("Q(display_name={name})", "Q(display_name__iexact={name})", "Q(display_name__gt={name})"),
        *("Q(display_name__icontains={letter})", "Q(display_name__contains={letter})"),
        *("Q(display_name__startswith={letter})", "Q(display_name__endswith={letter})"),
        *('Q(display_name__regex="^[a-z]")', "Q(display_name__in=[{name}, {name}])"),
        *(
            "Q(country={country})",
            "Q(country__in=[{country}, {country}])",
            'Q(plan="pro")',
            "Q(bio='')",
        ),
        *("Q(created_at={when})", "Q(created_at__gte={when})", "Q(created_at__lt={when})"),
        *("Q(created_at__range=({when}, {when}))", "Q(created_at__year=2024)"),
        *("Q(created_at__date=date(2024, 1, 1))", "Q(created_at__hour__gt=8)"),
        *("Q(settings__level={n})", "Q(settings__level__gt={n})", "Q(settings__level=None)"),
        *('Q(settings__has_key="nick")', "Q(settings__nick__isnull={bool})"),
        *("Q(settings__contains=dict(level={n}))", 'Q(updated_at__gt=F("created_at"))'),
        *(
            "Q(user_id__in=ids[{n}:20])",
            "Q(pk__in=ids[::7])",
            "Q(user_id=ids[{n}])",
            "Q(pk__in=[])",
        ),
        'Q(user_id__in=A.filter({other_condition}).values("profile"))',
        *("Exists({tied}.filter({other_condition}))", "Exists({tied})", "~Exists({tied})"),
    ],
    "filter": [
        *("Q(activities__kind={kind})", "Q(activities__amount__gt={amount})"),
        *("Q(activities__isnull={bool})", "Q(activities__kind__in=[{kind}, {kind}])"),
        "Q(activities__occurred_at__lt={when}, activities__amount__lte={amount})",
    ],
    "measure": ['Cast(KeyTextTransform("score", "settings"), FloatField())'],
    "exact": [
        *('Count("activities")', 'Sum("activities__amount")', 'Max("activities__occurred_at")'),
        'Count("activities", filter=Q(activities__kind={kind}))',
        'Count("user_id", distinct=True)',
    ],
    "whole": ['Count("activities", distinct=True)', 'Sum("activities__amount", distinct=True)'],
    "filtered": ['FilteredRelation("activities", condition=Q(activities__kind={kind}))'],
    "span": ['(F("updated_at") - F("created_at"))'],
    "joined": ['"activities__kind"', '"-activities__amount"', '"activities__profile"'],
    "key": ['"user_id"', '"pk"'],
    "id": ["ids[3]", "ids[40]", "ids[59]", "ids[17]"],
    "ids": ["ids[3:9]", "[]", "ids[:1]", "None", "ids"],
    "when_field": ['"created_at"', '"updated_at"'],
    "part": ['"created_at__year"', '"updated_at__hour"'],
    "prefetch": [
        '"activities"',
        'Prefetch("activities", A{other_filters}.order_by({other_terms}, "pk"))',
        'Prefetch("activities", A.order_by({other_terms}, "pk"), to_attr="listed")',
        'Prefetch("activities", A.order_by({other_terms}, "pk")[:2])',
        'Prefetch("activities", A.only("amount").order_by("pk"))',
        '"activities__profile"',
    ],
}

_ACTIVITY: Grammar = {
    "source": ["A"],
    "text": [
        *('F("kind")', 'F("profile__country")', 'F("profile__display_name")'),
        'KeyTextTransform("tag", "payload")',
    ],
    "integer": [
        *('Length("kind")', 'Cast(KeyTextTransform("n", "payload"), IntegerField())'),
    ],
    "float": [
        'Cast(KeyTextTransform("ratio", "payload"), FloatField())',
        'Cast("amount", FloatField())',
    ],
    "decimal": [
        *('F("amount")', 'F("amount")', 'F("amount")'),
    ],
    "moment": ['F("occurred_at")', 'F("profile__created_at")'],
    "other": ['F("profile")', 'F("id")', '(F("occurred_at") - F("profile__created_at"))'],
    "window": [
        'Window(RowNumber(), partition_by="profile", order_by=["occurred_at", "id"])',
        'Window(Rank(), partition_by=["profile", "kind"], order_by="amount")',
        'Window(Sum("amount"), partition_by=F("profile"))',
        'Window(Lag("amount"), partition_by="profile_id", order_by=["id"])',
        'Window(Max("kind"), partition_by=[F("kind"), F("profile__user_id")])',
    ],
    "tied": ['P.filter(pk=OuterRef("profile"))', 'P.filter(user_id=OuterRef("profile_id"))'],
    "field": [
        *('"kind"', '"-kind"', '"amount"', '"-amount"', '"occurred_at"', '"-occurred_at"'),
        *('"profile__country"', '"-profile__created_at"', '"profile"'),
    ],
    "column": ['"kind"', '"amount"', '"payload__tag"', '"profile__bio"'],
    "loading": [
        *("", "", '.only("kind")', '.defer("payload")', '.select_related("profile")'),
        *('.select_related("profile").only("amount", "profile__bio")', ".select_related()"),
    ],
    "condition": [
        *("Q(kind={kind})", "Q(kind__iexact={kind})", "Q(kind__in=[{kind}, {kind}])"),
        *("Q(kind__contains={letter})", "Q(kind__istartswith={letter})", "Q(kind__lt={kind})"),
        *("Q(amount={amount})", "Q(amount__gt={amount})", "Q(amount__lte={amount})"),
        *("Q(amount__range=({amount}, {amount}))", 'Q(amount__gt=F("amount") * -1)'),
        *("Q(occurred_at__gt={when})", "Q(occurred_at={when})", "Q(occurred_at__month=3)"),
        *("Q(payload__n={n})", "Q(payload__n__isnull={bool})", 'Q(payload__has_key="tag")'),
        *("Q(payload__tag=None)", "Q(payload__ratio__gte=0.2)"),
        *("Q(profile__country={country})", "Q(profile__display_name__icontains={letter})"),
        *("Q(profile__created_at__lte={when})", 'Q(occurred_at__gt=F("profile__created_at"))'),
        *("Q(profile__in=ids[{n}:20])", "Q(profile=ids[{n}])", "Q(profile__user_id__in=ids[::5])"),
        *("Q(id__in=activity_ids[::3])", "Q(profile__settings__level__gt={n})"),
        'Q(profile__in=P.filter({other_condition}).values("pk"))',
        *("Exists({tied}.filter({other_condition}))", "Exists({tied})"),
    ],
    "filter": [
        "Q(profile__activities__kind={kind})",
        "Q(profile__activities__amount__gt={amount})",
    ],
    "measure": ['Cast(KeyTextTransform("ratio", "payload"), FloatField())'],
    "exact": ['Count("profile", distinct=True)', 'Min("profile__created_at")'],
    "whole": ['Count("kind", distinct=True)', 'Avg("amount", distinct=True)'],
    "filtered": ['FilteredRelation("profile", condition=Q(profile__country={country}))'],
    "span": ['(F("occurred_at") - F("profile__created_at"))'],
    "joined": ['"profile__activities__kind"', '"-profile__activities__amount"'],
    "key": ['"profile"', '"profile_id"', '"profile__user_id"', '"id"'],
    "id": ["activity_ids[3]", "activity_ids[40]", "activity_ids[199]"],
    "ids": ["activity_ids[3:9]", "[]", "activity_ids[:1]", "None", "activity_ids[::2]"],
    "when_field": ['"occurred_at"'],
    "part": ['"occurred_at__month"', '"profile__created_at__year"'],
    "prefetch": [
        '"profile"',
        'Prefetch("profile", P.only("bio"))',
        'Prefetch("profile", P.defer("settings"))',
        'Prefetch("profile__activities", A{filters}.order_by({terms}, "pk"))',
    ],
}


def _joined(special: Grammar) -> Grammar:
    """The choices of both; the model's own, which are simpler, come first."""
    return _EXPRESSIONS | {
        symbol: choices + _EXPRESSIONS.get(symbol, []) for symbol, choices in special.items()
    }


PROFILE = _joined(_PROFILE)
ACTIVITY = _joined(_ACTIVITY)
