"""The command `migrate`: all databases, or Django's own meaning where its options say so."""

import io
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from unittest import mock

from django.core.checks import CheckMessage, Error, Tags, Warning, register, registry
from django.core.management import CommandError, call_command
from django.db import connections
from django.db.migrations.recorder import MigrationRecorder
from django.test import SimpleTestCase, override_settings

from sharding import identity, slot_cache
from sharding.errors import InvalidSlotMap
from sharding.management.commands.migrate import Command
from sharding.shard_checks import check_shards
from tests.outage import scratch_databases
from tests.sharding import notes
from tests.support import server_down

ALL = ("default", "analytics", "shard_1", "shard_2", "shard_3")
NAMES = ("primary", "analytics", "shard_1", "shard_2", "shard_3")


@override_settings(
    INSTALLED_APPS=["sharding", "tests.sharding.notes"],
    MIGRATION_MODULES={"notes": "tests.sharding.notes.failing"},
)
class MigrateTestCase(SimpleTestCase):
    """On empty databases, with three migrations: one of `sharding`, two of `notes`."""

    databases = "__all__"

    def setUp(self) -> None:
        notes.ran[:] = [("repair", "shard_2")]
        self.enterContext(scratch_databases())

    def migrate(self, *arguments: object, **options: object) -> tuple[str, str]:
        """Run the command; return what it said and what it complained of, also when it fails."""
        self.out, self.complaints = io.StringIO(), io.StringIO()
        call_command("migrate", *arguments, stdout=self.out, stderr=self.complaints, **options)
        return self.out.getvalue(), self.complaints.getvalue()

    def applied(self) -> dict[str, list[str]]:
        """Alias -> the first digits of the migrations of `notes` applied there."""
        recorders = {alias: MigrationRecorder(connections[alias]) for alias in ALL}
        return {
            alias: sorted(n[:4] for label, n in recorder.applied_migrations() if label == "notes")
            for alias, recorder in recorders.items()
        }

    def assertApplied(self, *numbers: str, **exceptions: Sequence[str]) -> None:
        expected = {alias: [*exceptions.get(alias, numbers)] for alias in ALL}
        self.assertEqual(self.applied(), expected)

    def assertSummary(self, **expected: str) -> None:
        lines = self.out.getvalue().partition("Summary:\n")[2].splitlines()
        found = {name: " ".join(rest) for name, *rest in (line.split() for line in lines)}
        self.assertEqual(found, expected)


class AllDatabasesTests(MigrateTestCase):
    def test_each_has_its_own_lines_and_then_comes_a_summary(self) -> None:
        out, complaints = self.migrate()
        self.assertApplied("0001", "0002")
        self.assertEqual(complaints, "")
        parts = out.partition("Summary:")[0].split("Database ")[1:]
        self.assertEqual([part.partition(":")[0] for part in parts], list(NAMES))
        for part in parts:
            self.assertEqual(part.count("Applying notes.0002_fails... OK"), 1, part)
        self.assertSummary(**dict.fromkeys(NAMES, "4 migrations OK"))

    def test_again_it_changes_nothing(self) -> None:
        self.migrate()
        out, _ = self.migrate()
        self.assertEqual(out.count("No migrations to apply."), len(ALL))
        self.assertSummary(**dict.fromkeys(NAMES, "0 migrations OK"))

    def test_quietly(self) -> None:
        self.assertEqual(self.migrate(verbosity=0), ("", ""))
        self.assertApplied("0001", "0002")


def connect_and_check(
    databases: Sequence[str] | None = None, **kwargs: object
) -> list[CheckMessage]:
    """The project's check, after another one that has connected."""
    for alias in databases or ():
        connections[alias].ensure_connection()
    return check_shards(databases=databases)


class FailureTests(MigrateTestCase):
    def test_a_server_that_is_down_does_not_stop_the_others(self) -> None:
        with server_down("shard_2"), self.assertRaisesMessage(CommandError, "Not done on shard_2,"):
            self.migrate()
        self.assertApplied("0001", "0002", shard_2=[])
        self.assertRegex(
            self.complaints.getvalue(), r"^shard_2: Database shard_2 cannot be reached"
        )
        self.assertNotIn("Traceback", self.complaints.getvalue())
        done = dict.fromkeys(NAMES, "4 migrations OK")
        self.assertSummary(**done | {"shard_2": "0 migrations failed"})

    def test_the_primary_too(self) -> None:
        with server_down("default"), self.assertRaisesMessage(CommandError, "Not done on primary,"):
            self.migrate()
        self.assertApplied("0001", "0002", default=[])

    def test_a_rerun_does_the_rest(self) -> None:
        with (
            server_down("shard_1"),
            server_down("analytics"),
            self.assertRaisesMessage(CommandError, "Not done on analytics, shard_1, see above."),
        ):
            self.migrate()
        self.migrate()
        self.assertApplied("0001", "0002")
        done = dict.fromkeys(NAMES, "0 migrations OK")
        self.assertSummary(**done | dict.fromkeys(["analytics", "shard_1"], "4 migrations OK"))

    def test_a_migration_that_fails_in_one_database(self) -> None:
        notes.ran.clear()
        with self.assertRaisesMessage(CommandError, "Not done on shard_2,"):
            self.migrate()
        self.assertApplied("0001", "0002", shard_2=["0001"])
        # Not an error that explains itself.
        self.assertIn("Traceback", self.complaints.getvalue())
        self.assertIn("KeyError: 'surprise'", self.complaints.getvalue())
        done = dict.fromkeys(NAMES, "4 migrations OK")
        self.assertSummary(**done | {"shard_2": "1 migration failed"})

    def test_a_traceback_is_shown_on_request(self) -> None:
        with server_down("shard_2"), self.assertRaises(CommandError):
            self.migrate(traceback=True)
        self.assertApplied("0001", "0002", shard_2=[])
        self.assertIn("Traceback", self.complaints.getvalue())

    def test_a_slot_map_that_is_none_fails_the_primary_alone(self) -> None:
        with (
            self.settings(SHARD_SLOTS="shard_1=0-5"),
            self.assertRaisesMessage(CommandError, "Not done on primary,"),
        ):
            self.migrate()
        self.assertIn("994 slots have no owner", self.complaints.getvalue())
        self.assertApplied("0001", "0002")
        with self.assertRaises(InvalidSlotMap):
            slot_cache.read()
        # The shards do not know yet who they are, which must not stop the command that tells them.
        identity._right.clear()
        connections.close_all()
        with (
            self.settings(SHARDING_CHECK_IDENTITY=True),
            mock.patch.object(registry.registry, "registered_checks", set()),
        ):
            register(connect_and_check, Tags.database)
            self.migrate(skip_checks=False)
        self.assertEqual(slot_cache.read().alias(999), "shard_3")


class DjangosMeaningTests(MigrateTestCase):
    def test_database(self) -> None:
        out, _ = self.migrate(database="shard_3")
        self.assertApplied(shard_3=["0001", "0002"])
        self.assertNotIn("Summary", out)

    def test_database_that_is_down(self) -> None:
        with server_down("shard_3"), self.assertRaisesMessage(Exception, "Database shard_3"):
            self.migrate(database="shard_3")

    def test_one_app_and_back(self) -> None:
        self.migrate("notes", "0001")
        self.assertApplied("0001")
        self.migrate("notes")
        self.assertApplied("0001", "0002")
        self.migrate("sharding")
        for alias in ALL:
            tables = connections[alias].introspection.table_names()
            self.assertIs("notes_memo" in tables, alias.startswith("shard_"))
        self.migrate("notes", "0001", fake=True)
        self.migrate("notes", "zero")
        self.assertApplied()
        self.assertSummary(**dict.fromkeys(NAMES, "1 migration OK"))
        for alias in ALL:
            tables = connections[alias].introspection.table_names()
            self.assertFalse({"notes_memo", "notes_author"} & {*tables})

    def test_plan(self) -> None:
        out, _ = self.migrate(plan=True)
        self.assertApplied()
        self.assertEqual(out.count("Planned operations:\n"), len(ALL))
        self.assertEqual(out.count("notes.0002_fails\n"), len(ALL))
        self.assertNotIn("Summary", out)
        out, _ = self.migrate(plan=True, database="shard_1")
        self.assertEqual(out.count("notes.0002_fails\n"), 1)

    def test_check(self) -> None:
        with self.assertRaisesMessage(CommandError, "unapplied migrations on primary, analytics, "):
            self.migrate(check_unapplied=True)
        self.assertApplied()
        for alias in set(ALL) - {"shard_2"}:
            self.migrate(database=alias)
        with self.assertRaises(CommandError) as caught:
            self.migrate(check_unapplied=True)
        self.assertEqual(str(caught.exception), "There are unapplied migrations on shard_2.")
        self.assertEqual(caught.exception.returncode, 1)
        with self.assertRaises(SystemExit):
            self.migrate(check_unapplied=True, database="shard_2")
        self.migrate(database="shard_2")
        self.migrate(check_unapplied=True)

    def test_check_with_a_server_that_is_down(self) -> None:
        self.migrate()
        with server_down("shard_2"), self.assertRaisesMessage(CommandError, "Not done on shard_2"):
            self.migrate(check_unapplied=True)

    def test_fake(self) -> None:
        self.migrate("sharding")
        self.migrate(fake=True)
        self.assertApplied("0001", "0002")
        for alias in ALL:
            tables = connections[alias].introspection.table_names()
            self.assertFalse({"notes_memo", "notes_author"} & {*tables})

    def test_an_app_that_is_unknown(self) -> None:
        with self.assertRaises(CommandError):
            self.migrate("nothing")
        self.assertIn("shard_3: No installed app with label 'nothing'.", self.complaints.getvalue())


class FromTheCommandLineTests(MigrateTestCase):
    def setUp(self) -> None:
        super().setUp()
        # Without those of the apps that are not installed here.
        self.enterContext(mock.patch.object(registry.registry, "registered_checks", set()))

    def run_from_command_line(self, *arguments: str) -> tuple[int, str]:
        """Return the exit code and all that was written."""
        text, code = io.StringIO(), 0
        with redirect_stdout(text), redirect_stderr(text):
            try:
                Command().run_from_argv(["manage.py", "migrate", "--no-color", *arguments])
            except SystemExit as end:
                code = int(end.code or 0)
        return code, text.getvalue()

    def test_exit_codes(self) -> None:
        self.assertEqual(self.run_from_command_line("--check")[0], 1)
        with server_down("shard_2"):
            code, text = self.run_from_command_line()
        self.assertEqual(code, 1)
        self.assertIn("CommandError: Not done on shard_2, see above.", text)
        self.assertEqual(self.run_from_command_line()[0], 0)
        self.assertEqual(self.run_from_command_line("--check")[0], 0)
        self.assertEqual(self.run_from_command_line("--database", "nothing")[0], 2)

    def test_checks_of_a_database_fail_it_alone(self) -> None:
        def check(databases: Sequence[str] | None = None, **kwargs: object) -> list[Error]:
            return [Error("Strange.", id="tests.E1")] if "shard_1" in (databases or ()) else []

        register(check, Tags.database)
        code, text = self.run_from_command_line()
        self.assertEqual(code, 1)
        self.assertIn("Not done on shard_1,", text)
        self.assertEqual(text.count("tests.E1"), 1)
        self.assertApplied("0001", "0002", shard_1=[])

    def test_other_checks_run_once(self) -> None:
        register(lambda **kwargs: [Warning("Strange.", id="tests.W1")], Tags.models)
        code, text = self.run_from_command_line()
        self.assertEqual(code, 0)
        self.assertEqual(text.count("tests.W1"), 1)
