"""Every page of the admin over shards, compared with the same page over one database."""

from typing import Any
from urllib.parse import urlencode

from django.db.models import Q
from hypothesis import given
from hypothesis import strategies as st

from tests.sharding.admin.plain.models import PlainProfile
from tests.sharding.admin.sides import NEW_ID, SidesTestCase
from tests.sharding.orm import examples
from tests.sharding.orm.data import ACTIVITY_IDS, PROFILE_IDS
from users.models import Activity, Profile

_TERMS = st.sampled_from(["a", "zo", "ß", "100%", "a b", '"a b"', "CH", "pro", str(PROFILE_IDS[0])])
_DATES = st.sampled_from([(2023,), (2024,), (2024, 2), (2024, 3, 31), (2025, 6), (1999,)])
_ORDERS = st.lists(
    st.tuples(st.sampled_from(["", "-"]), st.integers(1, 6)).map(lambda o: f"{o[0]}{o[1]}"),
    max_size=3,
    unique_by=lambda order: order.strip("-"),
).map(".".join)


def lists(moment: str, filters: dict[str, list[Any]]) -> st.SearchStrategy[str]:
    """Query strings of a change list: order, search, filters, date hierarchy, page."""
    chosen = {name: st.sampled_from(values) for name, values in filters.items()}
    parts = st.fixed_dictionaries(
        {}, optional={"o": _ORDERS, "q": _TERMS, "p": st.integers(1, 4), "day": _DATES, **chosen}
    )
    return parts.map(lambda given: _query(given, moment))


def _query(given: dict[str, Any], moment: str) -> str:
    periods = zip(("year", "month", "day"), given.pop("day", ()), strict=False)
    return "?" + urlencode(given | {f"{moment}__{name}": value for name, value in periods})


PROFILES = lists(
    "created_at", {"plan__exact": ["free", "team", "none"], "country__isempty": ["0", "1"]}
)
ACTIVITIES = lists("occurred_at", {"profile__plan__exact": ["pro", "free"]})


class ListTests(SidesTestCase):
    def test_profiles(self) -> None:
        @examples(15)
        @given(PROFILES)
        def check(query: str) -> None:
            self.get(f"profile/{query}")

        check()

    def test_activities(self) -> None:
        @examples(10)
        @given(ACTIVITIES)
        def check(query: str) -> None:
            self.get(f"activity/{query}")

        check()

    def test_all_on_one_page(self) -> None:
        self.get("profile/?all=")

    def test_wrong_parameters(self) -> None:
        for query in ("?p=99", "?o=77", "?plan__exact=pro&nonsense=1", "?created_at__year=x"):
            with self.subTest(query):
                self.get(f"profile/{query}")

    def test_the_choices_of_autocomplete(self) -> None:
        field = {"app_label": "users", "model_name": "activity", "field_name": "profile"}
        url = f"/sharded/autocomplete/?{urlencode(field | {'term': 'a'})}"
        pages = [self.client.get(f"{url}&page={number}").json() for number in (1, 2)]
        named = PlainProfile.objects.filter(Q(display_name__icontains="a") | Q(bio__icontains="a"))
        expected = [str(row.pk) for row in named.order_by("pk")]
        offered = [row["id"] for page in pages for row in page["results"]]
        self.assertEqual(offered, expected[: 2 * 20])
        self.assertTrue(pages[0]["pagination"]["more"])


def inline(*forms: dict[str, Any], initial: int) -> dict[str, Any]:
    """The fields of the activities in a profile's page."""
    data: dict[str, Any] = {
        "activities-TOTAL_FORMS": len(forms),
        "activities-INITIAL_FORMS": initial,
        "activities-MIN_NUM_FORMS": 0,
        "activities-MAX_NUM_FORMS": 1000,
    }
    for number, form in enumerate(forms):
        data |= {f"activities-{number}-{name}": value for name, value in form.items()}
    return data


def profile_form(**values: Any) -> dict[str, Any]:
    moment = {"created_at_0": "2024-05-01", "created_at_1": "10:00:00"}
    return {"plan": "free", "settings": "{}", **moment, **values}


def activity_form(**values: Any) -> dict[str, Any]:
    moment = {"occurred_at_0": "2024-05-01", "occurred_at_1": "10:00:00"}
    return {"kind": "login", "amount": "1.50", **moment, **values}


class PageTests(SidesTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.activity = Activity.objects.across_shards().order_by("pk")[0]
        self.owner = self.activity.profile_id
        self.shown = list(
            Activity.objects.filter(profile=self.owner).order_by("occurred_at", "pk")[:3]
        )

    def existing(self, **values: Any) -> list[dict[str, Any]]:
        """The inline forms as the page shows them, with the first one's values changed."""
        forms = [
            activity_form(
                id=row.pk,
                profile=self.owner,
                kind=row.kind,
                amount=row.amount,
                occurred_at_0=f"{row.occurred_at:%Y-%m-%d}",
                occurred_at_1=f"{row.occurred_at:%H:%M:%S.%f}",
            )
            for row in self.shown
        ]
        forms[0] |= values
        return forms

    def test_pages_of_rows(self) -> None:
        for url in (
            *("profile/add/", f"profile/{self.owner}/change/", f"profile/{self.owner}/delete/"),
            *(f"profile/{self.owner}/history/", f"profile/{NEW_ID}/change/", "profile/x/change/"),
            *(f"profile/{self.owner}/change/?activities-page=2", f"activity/{NEW_ID}/delete/"),
            *(f"activity/{self.activity.pk}/{page}/" for page in ("change", "delete", "history")),
            f"activity/add/?profile={self.owner}",
        ):
            with self.subTest(url):
                self.get(url)

    def test_adds_a_profile(self) -> None:
        data = profile_form(user_id=NEW_ID, display_name="New", country="CH")
        self.post("profile/add/", data | inline(activity_form(), initial=0))
        added = Profile.objects.get(pk=NEW_ID)
        self.assertEqual(added.activities.get().kind, "login")
        self.get(f"profile/{NEW_ID}/history/")

    def test_refuses_what_is_wrong(self) -> None:
        wrong: dict[str, dict[str, Any]] = {
            "no id": {"user_id": ""},
            "no uuid": {"user_id": "12"},
            "taken": {"user_id": self.owner},
            "country": {"user_id": NEW_ID, "country": "Switzerland"},
            "plan": {"user_id": NEW_ID, "plan": "gold"},
            "settings": {"user_id": NEW_ID, "settings": "{"},
        }
        for name, values in wrong.items():
            with self.subTest(name):
                form = profile_form(**values) | inline(initial=0)
                self.assertEqual(self.post("profile/add/", form).status_code, 200)
        form = profile_form(user_id=NEW_ID) | inline(activity_form(amount="much"), initial=0)
        self.post("profile/add/", form)

    def test_changes_a_profile_and_its_activities(self) -> None:
        forms = [*self.existing(kind="changed"), activity_form(kind="added")]
        if len(self.shown) > 1:
            forms[1]["DELETE"] = "on"
        data = profile_form(display_name="Renamed", plan="pro", user_id=NEW_ID)
        self.post(f"profile/{self.owner}/change/", data | inline(*forms, initial=len(self.shown)))
        self.assertEqual(Profile.objects.get(pk=self.owner).display_name, "Renamed")

    def test_deletes_a_profile_with_its_activities(self) -> None:
        self.post(f"profile/{self.owner}/delete/", {"post": "yes"})
        self.assertFalse(Activity.objects.filter(profile=self.owner).exists())

    def test_adds_changes_and_deletes_an_activity(self) -> None:
        form = activity_form(payload="{}")
        self.post("activity/add/", form | {"profile": PROFILE_IDS[5]})
        self.post("activity/add/", form | {"profile": NEW_ID})
        self.post(f"activity/{self.activity.pk}/change/", form | {"kind": "changed"})
        self.post(f"activity/{self.activity.pk}/change/", form | {"amount": "much"})
        self.post(f"activity/{self.activity.pk}/delete/", {"post": "yes"})
        self.post(f"activity/{self.activity.pk}/delete/", {"post": "yes"})


class ActionTests(SidesTestCase):
    def act(self, url: str, action: str, ids: Any, **values: Any) -> Any:
        data = {"action": action, "_selected_action": [str(each) for each in ids], **values}
        return self.post(url, data)

    def test_updates_the_rows_of_several_shards(self) -> None:
        self.act("profile/", "promote", PROFILE_IDS[:9], index=0)
        self.act("profile/?plan__exact=free", "promote", PROFILE_IDS[:20], index=0)

    def test_shows_what_would_be_deleted_and_deletes_it(self) -> None:
        preview = self.act("profile/", "delete_selected", PROFILE_IDS[3:4], index=0)
        self.assertContains(preview, "Activities")
        self.act("profile/", "delete_selected", PROFILE_IDS[:2], post="yes")
        self.act("activity/", "delete_selected", ACTIVITY_IDS[:1], index=0)
        self.act("activity/", "delete_selected", ACTIVITY_IDS[-1:], post="yes")

    def test_acts_on_all_pages(self) -> None:
        ids = PROFILE_IDS[:1]
        self.act("profile/?plan__exact=free", "promote", ids, index=0, select_across=1)

    def test_nothing_chosen(self) -> None:
        self.act("profile/", "promote", [], index=0)
        self.act("profile/", "", PROFILE_IDS[:1], index=0)
        self.act("profile/", "promote", [NEW_ID], index=0)
