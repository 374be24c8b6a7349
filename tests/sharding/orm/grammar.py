"""How the code of an example is written about each of the models; see expressions.py for both."""

from tests.sharding.orm.expressions import COMMON, Grammar

__all__ = ["ACTIVITY", "PROFILE"]

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
    return COMMON | {
        symbol: choices + COMMON.get(symbol, []) for symbol, choices in special.items()
    }


PROFILE = _joined(_PROFILE)
ACTIVITY = _joined(_ACTIVITY)
