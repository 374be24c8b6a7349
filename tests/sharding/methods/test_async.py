"""Async loops that end early: what comes next uses the same connections."""

from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections

from tests.sharding.methods.world import ADA, SHARDS, WorldTestCase
from users.models import Activity, Profile


def _open_cursors() -> int:
    number = 0
    for alias in SHARDS:
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_cursors WHERE name NOT LIKE '%%sharding%%'")
            number += cursor.fetchone()[0]
    return number


class AbandonedTests(WorldTestCase):
    async def test_the_next_queries_find_their_connections_free(self) -> None:
        everybody = Profile.objects.across_shards().order_by("pk")
        mine = Activity.objects.filter(profile=ADA)
        for queryset in (everybody, everybody.prefetch_related("activities"), mine):
            for _ in range(5):
                await self._leave_early(queryset)
                self.assertEqual(await everybody.acount(), 6)
            self.assertEqual(await sync_to_async(_open_cursors)(), 0)

    async def _leave_early(self, queryset: Any) -> None:
        async for _ in queryset.aiterator(chunk_size=1):
            return  # its cursors are left to the garbage collector
