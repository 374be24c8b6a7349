"""A primary key of two columns, the shard key and a number: one field, two values in each row."""

from typing import Any

from django.db import connections, models
from django.db.models import Count
from django.db.models.functions import Upper
from django.test.utils import isolate_apps

from sharding.models import ShardedModel
from tests.sharding.methods.world import OWNERS, REFERENCE, SHARDS, WorldTestCase

with isolate_apps("users"):

    class Note(ShardedModel):
        pk = models.CompositePrimaryKey("user_id", "number")
        user_id = models.UUIDField()
        number = models.IntegerField()
        text = models.CharField(max_length=9)

        class Meta:
            app_label = "users"


class CompositeTests(WorldTestCase):
    @classmethod
    def setUpTestData(cls) -> None:
        super().setUpTestData()
        for alias in (REFERENCE, *SHARDS):
            with connections[alias].schema_editor() as editor:
                editor.create_model(Note)
        managers: tuple[Any, ...] = (Note.objects, models.QuerySet(Note, using=REFERENCE))
        for manager in managers:
            manager.bulk_create(
                Note(user_id=user_id, number=number, text="ab"[number % 2])
                for user_id in OWNERS
                for number in range(3)
            )

    def assert_same(self, queryset: Any) -> None:
        both: tuple[Any, ...] = (
            Note.objects.across_shards(),
            models.QuerySet(Note, using=REFERENCE),
        )
        answers = [list(queryset(notes)) for notes in both]
        self.assertEqual(*answers)

    def test_order(self) -> None:
        self.assert_same(lambda notes: notes.order_by("pk"))
        self.assert_same(lambda notes: notes.order_by("-pk")[2:7])
        self.assert_same(lambda notes: notes.order_by("text", "-pk").iterator(2))
        self.assert_same(lambda notes: [notes.first(), notes.last()])

    def test_values(self) -> None:
        in_order = ("-number", "user_id")
        self.assert_same(lambda notes: notes.values_list("pk", flat=True).order_by(*in_order))
        self.assert_same(lambda notes: notes.values("pk", "text").order_by(*in_order)[3:9])
        self.assert_same(lambda notes: notes.values("text", "pk").order_by(*in_order).iterator(2))
        self.assert_same(
            lambda notes: (
                notes.annotate(upper=Upper("text"))
                .values_list("pk", "upper")
                .order_by("-upper", *in_order)
            )
        )

    def test_whole_rows(self) -> None:
        self.assert_same(lambda notes: [notes.values("pk").distinct().count()])
        self.assert_same(
            lambda notes: notes.values("pk").annotate(n=Count("text")).order_by("user_id", "number")
        )

    def test_keys(self) -> None:
        (user_id, alias), *_ = OWNERS.items()
        with self.assert_touches(alias):
            note = Note.objects.get(pk=(user_id, 1))
            Note.objects.filter(pk__in=[(user_id, 1), (user_id, 2)]).update(text="c")
            note.refresh_from_db()
        self.assertEqual(note.text, "c")
