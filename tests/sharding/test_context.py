"""`use_shard`: holds inside its block, for its thread and task alone."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Thread

from asgiref.sync import sync_to_async
from django.test import SimpleTestCase

from sharding import use_shard
from sharding.context import current_shard
from sharding.errors import ShardingError


class UseShardTests(SimpleTestCase):
    def tearDown(self) -> None:
        self.assertIsNone(current_shard())

    def test_holds_inside_the_block(self) -> None:
        self.assertIsNone(current_shard())
        with use_shard("shard_1"):
            self.assertEqual(current_shard(), "shard_1")
        self.assertIsNone(current_shard())

    def test_the_innermost_counts(self) -> None:
        with use_shard("shard_1"):
            with use_shard("shard_2"):
                with use_shard("shard_1"):
                    self.assertEqual(current_shard(), "shard_1")
                self.assertEqual(current_shard(), "shard_2")
            self.assertEqual(current_shard(), "shard_1")

    def test_restored_after_an_exception(self) -> None:
        with use_shard("shard_1"):
            with self.assertRaises(KeyboardInterrupt), use_shard("shard_2"):
                raise KeyboardInterrupt
            self.assertEqual(current_shard(), "shard_1")

    def test_as_a_decorator(self) -> None:
        decorated = use_shard("shard_2")(current_shard)
        self.assertEqual([decorated(), decorated()], ["shard_2", "shard_2"])

    def test_an_alias_that_is_no_shard(self) -> None:
        for alias in ("default", "analytics", "shard_9", "", "SHARD_1"):
            with (
                self.subTest(alias),
                use_shard("shard_3"),
                self.assertRaisesMessage(ShardingError, "The shards are shard_1, shard_2, shard_3"),
                use_shard(alias),
            ):
                self.fail("entered the block")

    def test_another_thread_does_not_see_it(self) -> None:
        seen = []
        with use_shard("shard_1"):
            thread = Thread(target=lambda: seen.append(current_shard()))
            thread.start()
            thread.join()
        self.assertEqual(seen, [None])

    def test_threads_at_once_see_each_their_own(self) -> None:
        aliases = ["shard_1", "shard_2", "shard_3"]
        inside = Barrier(len(aliases))

        def enter(alias: str) -> list[str | None]:
            with use_shard(alias):
                inside.wait(timeout=10)
                seen = current_shard()
                inside.wait(timeout=10)
            return [seen, current_shard()]

        with ThreadPoolExecutor(len(aliases)) as pool:
            self.assertEqual([*pool.map(enter, aliases)], [[alias, None] for alias in aliases])

    def test_tasks_at_once_see_each_their_own(self) -> None:
        async def enter(alias: str) -> list[str | None]:
            with use_shard(alias):
                await asyncio.sleep(0)
                seen = current_shard()
                await asyncio.sleep(0)
            return [seen, current_shard()]

        async def all_at_once() -> list[list[str | None]]:
            return await asyncio.gather(*map(enter, ["shard_1", "shard_2"]))

        expected = [["shard_1", None], ["shard_2", None]]
        self.assertEqual(asyncio.run(all_at_once()), expected)

    async def test_synchronous_code_of_a_task_sees_its_shard(self) -> None:
        with use_shard("shard_2"):
            self.assertEqual(await sync_to_async(current_shard)(), "shard_2")
        self.assertIsNone(await sync_to_async(current_shard)())
