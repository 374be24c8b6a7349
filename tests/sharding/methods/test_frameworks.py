"""Forms, generic views, pages and DRF, which are built on querysets: the owning shards only."""

from typing import Any

from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.forms import ModelForm, modelformset_factory
from django.http import Http404
from django.shortcuts import aget_object_or_404, get_list_or_404, get_object_or_404
from django.template import engines
from django.test import RequestFactory
from django.views.generic import CreateView, DeleteView, DetailView, ListView, UpdateView

from sharding.errors import ShardKeyRequired
from tests.sharding.methods.world import (
    ADA,
    BOB,
    CY,
    FREE_ID,
    SHARDS,
    WorldTestCase,
    activity_id,
    plain,
)
from users.models import Activity, Profile


class ProfileForm(ModelForm):
    class Meta:
        model = Profile
        fields = ["user_id", "display_name", "plan"]


class ActivityForm(ModelForm):
    class Meta:
        model = Activity
        fields = ["kind", "amount"]


class ActivityWithProfileForm(ModelForm):
    class Meta:
        model = Activity
        fields = ["profile", "kind", "amount"]


class ModelFormTests(WorldTestCase):
    def test_a_new_row(self) -> None:
        form = ProfileForm({"user_id": str(FREE_ID), "display_name": "New", "plan": "pro"})
        with self.assert_touches("shard_2"):
            self.assertTrue(form.is_valid(), form.errors)
            form.save()
        self.assertEqual(plain(Profile, "shard_2").get(pk=FREE_ID).display_name, "New")

    def test_a_duplicate_is_found_on_its_shard(self) -> None:
        form = ProfileForm({"user_id": str(BOB), "display_name": "New", "plan": "pro"})
        with self.assert_touches("shard_2"):
            self.assertFalse(form.is_valid())
        self.assertEqual(form.errors["user_id"], ["Profile with this User id already exists."])

    def test_a_stored_row(self) -> None:
        profile = Profile.objects.get(pk=BOB)
        form = ProfileForm(
            {"user_id": str(BOB), "display_name": "Robert", "plan": "pro"}, instance=profile
        )
        with self.assert_touches("shard_2"):
            self.assertTrue(form.is_valid(), form.errors)
            form.save()
        self.assertEqual(plain(Profile, "shard_2").get(pk=BOB).display_name, "Robert")

    def test_the_key_comes_after_the_form(self) -> None:
        """The usual way: the form leaves the owner out, the view sets it."""
        form = ActivityForm({"kind": "new", "amount": "1"})
        with self.assert_touches():
            self.assertTrue(form.is_valid(), form.errors)
        activity = form.save(commit=False)
        activity.profile = Profile.objects.get(pk=CY)
        with self.assert_touches("shard_3"):
            activity.save()

    def test_the_key_comes_before_the_form(self) -> None:
        form = ActivityForm({"kind": "new", "amount": "1"}, instance=Activity(profile_id=CY))
        with self.assert_touches("shard_3"):
            self.assertTrue(form.is_valid(), form.errors)
            form.save()

    def test_the_key_in_the_form(self) -> None:
        data = {"profile": str(CY), "kind": "new", "amount": "1"}
        form = ActivityWithProfileForm(data)
        with self.assert_touches("shard_3"):
            self.assertTrue(form.is_valid(), form.errors)
            form.save()
        form = ActivityWithProfileForm({**data, "profile": str(FREE_ID)})
        with self.assert_touches("shard_2"):
            self.assertFalse(form.is_valid())
        self.assertIn("Select a valid choice", form.errors["profile"][0])

    def test_a_choice_of_all_profiles_must_be_asked_for(self) -> None:
        with self.assertRaises(ShardKeyRequired):
            str(ActivityWithProfileForm())
        form = ActivityWithProfileForm()
        form.fields["profile"].queryset = Profile.objects.across_shards()  # type: ignore[attr-defined]
        self.assertEqual(str(form).count("<option"), 7)

    def test_full_clean(self) -> None:
        with self.assert_touches("shard_2"), self.assertRaises(ValidationError):
            Activity(id=activity_id(BOB, 0), profile_id=BOB, kind="x").full_clean()
        with self.assert_touches("shard_2"):
            Activity(profile_id=BOB, kind="x").full_clean()

    def test_a_formset(self) -> None:
        formset_class = modelformset_factory(Activity, ActivityForm, extra=0)
        queryset = Activity.objects.filter(profile__in=[ADA, CY]).order_by("pk")
        data: dict[str, Any] = {"form-TOTAL_FORMS": 4, "form-INITIAL_FORMS": 4}
        for number, activity in enumerate(queryset):
            data[f"form-{number}-id"] = str(activity.pk)
            data[f"form-{number}-kind"] = "changed"
            data[f"form-{number}-amount"] = "1"
        formset = formset_class(data, queryset=queryset)
        with self.assert_touches("shard_1", "shard_3"):
            self.assertTrue(formset.is_valid(), formset.errors)
            formset.save()
        self.assertEqual(Activity.objects.across_shards().filter(kind="changed").count(), 4)


class ShortcutTests(WorldTestCase):
    def test_get_object_or_404(self) -> None:
        with self.assert_touches("shard_2", times=1):
            self.assertEqual(get_object_or_404(Profile, pk=BOB).display_name, "Bob")
        with self.assert_touches("shard_2", times=1), self.assertRaises(Http404):
            get_object_or_404(Profile, pk=FREE_ID)
        with self.assert_touches(*SHARDS, times=1):
            get_object_or_404(Activity.objects.across_shards(), pk=activity_id(CY, 0))
        with self.assertRaises(ShardKeyRequired):
            get_object_or_404(Activity, pk=activity_id(CY, 0))

    def test_get_list_or_404(self) -> None:
        with self.assert_touches("shard_1", times=1):
            self.assertEqual(len(get_list_or_404(Activity, profile=ADA)), 3)

    async def test_async(self) -> None:
        self.assertEqual((await aget_object_or_404(Profile, pk=BOB)).display_name, "Bob")


class PaginatorTests(WorldTestCase):
    def test_pages_across_shards(self) -> None:
        paginator = Paginator(Profile.objects.across_shards().order_by("created_at"), 2)
        with self.assert_touches(*SHARDS, times=1):
            self.assertEqual((paginator.count, paginator.num_pages), (6, 3))
        with self.assert_touches(*SHARDS, times=1):
            self.assertEqual([each.display_name for each in paginator.page(2)], ["Bob", "Cy"])
        with self.assert_touches(*SHARDS, times=1):
            self.assertEqual([each.display_name for each in paginator.get_page(99)], ["Ada", "Eve"])

    def test_pages_of_one_user(self) -> None:
        paginator = Paginator(Activity.objects.filter(profile=ADA).order_by("occurred_at"), 2)
        with self.assert_touches("shard_1", times=2):
            self.assertEqual([each.kind for each in paginator.page(2)], ["order"])

    def test_orphans_and_page_ranges(self) -> None:
        paginator = Paginator(Profile.objects.across_shards().order_by("pk"), 4, orphans=2)
        self.assertEqual(list(paginator.page_range), [1])
        self.assertEqual(len(paginator.page(1).object_list), 6)


class ProfileDetail(DetailView):
    model = Profile


class ActivityList(ListView):
    paginate_by = 2

    def get_queryset(self) -> Any:
        return Activity.objects.filter(profile=self.kwargs["user_id"]).order_by("occurred_at")


class Everybody(ListView):
    queryset = Profile.objects.across_shards()
    ordering = "-created_at"
    paginate_by = 4


class ProfileCreate(CreateView):
    model = Profile
    form_class = ProfileForm
    success_url = "/"


class ProfileUpdate(UpdateView):
    model = Profile
    form_class = ProfileForm
    success_url = "/"


class ProfileDelete(DeleteView):
    model = Profile
    success_url = "/"


class GenericViewTests(WorldTestCase):
    def call(self, view: Any, method: str = "get", data: Any = None, **kwargs: Any) -> Any:
        request = getattr(RequestFactory(), method)("/", data or {})
        return view.as_view()(request, **kwargs)

    def test_detail(self) -> None:
        with self.assert_touches("shard_2", times=1):
            self.assertEqual(
                self.call(ProfileDetail, pk=BOB).context_data["profile"].display_name, "Bob"
            )
        with self.assert_touches("shard_2"), self.assertRaises(Http404):
            self.call(ProfileDetail, pk=str(FREE_ID))

    def test_list_of_one_user(self) -> None:
        with self.assert_touches("shard_1"):
            context = self.call(ActivityList, user_id=ADA).context_data
            self.assertEqual(len(context["object_list"]), 2)
        self.assertEqual(context["paginator"].count, 3)

    def test_list_of_all(self) -> None:
        with self.assert_touches(*SHARDS):
            context = self.call(Everybody, data={"page": 2}).context_data
            names = [each.display_name for each in context["object_list"]]
        self.assertEqual(names, ["Fay", "Dee"])

    def test_a_view_keeps_no_shard_between_requests(self) -> None:
        for _ in range(2):
            self.assertEqual(len(self.call(Everybody).context_data["object_list"]), 4)
            Profile.objects.filter(pk=CY).update(plan="pro")

    def test_create_update_delete(self) -> None:
        data = {"user_id": str(FREE_ID), "display_name": "New", "plan": "free"}
        with self.assert_touches("shard_2"):
            self.assertEqual(self.call(ProfileCreate, "post", data).status_code, 302)
            data["display_name"] = "Newer"
            self.assertEqual(self.call(ProfileUpdate, "post", data, pk=FREE_ID).status_code, 302)
            self.assertEqual(Profile.objects.get(pk=FREE_ID).display_name, "Newer")
            self.assertEqual(self.call(ProfileDelete, "post", pk=FREE_ID).status_code, 302)
        self.assertFalse(Profile.objects.filter(pk=FREE_ID).exists())


class TemplateTests(WorldTestCase):
    def render(self, text: str, **context: Any) -> str:
        return engines["django"].from_string(text).render(context)

    def test_loops(self) -> None:
        everybody = Profile.objects.across_shards().order_by("pk")
        text = "{% for p in everybody %}{{ p }}:{{ p.activities.count }} {% endfor %}"
        self.assertEqual(
            self.render(text, everybody=everybody), "Ada:3 Dee:2 Bob:2 Eve:0 Cy:1 Fay:0 "
        )

    def test_methods_that_change_rows_are_not_called(self) -> None:
        everybody = Profile.objects.across_shards()
        bob = Profile.objects.get(pk=BOB)
        with self.assert_touches():
            for text in ("{{ q.delete }}", "{{ q.update }}", "{{ b.activities.all.delete }}"):
                self.assertEqual(self.render(text, q=everybody, b=bob), "")
        self.assertEqual(everybody.count(), 6)
