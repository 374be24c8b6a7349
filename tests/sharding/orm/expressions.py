"""How the code of an example is written: each symbol's choices, the simplest first.

In braces stands another symbol; `other_…` is one of the other model's. What is said of a model is
in grammar.py.
"""

from tests.sharding.orm.data import AMOUNTS, COUNTRIES, KINDS, MOMENTS, NAMES

__all__ = ["COMMON", "Grammar"]

Grammar = dict[str, list[str]]

COMMON: Grammar = {
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
        ".filter({condition}).filter({filter})",
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
