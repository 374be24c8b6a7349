"""Migrations of an app whose models live in several places, on new and on existing databases."""

from uuid import UUID, uuid4

from django.core.management import call_command
from django.db import connections
from django.db.migrations.recorder import MigrationRecorder
from django.test import SimpleTestCase, override_settings

from sharding.errors import ShardingError
from sharding.migrating import place_by_name
from sharding.placement import SHARDS
from tests.outage import scratch_databases
from tests.sharding import notes

SHARD_ALIASES = ["shard_1", "shard_2", "shard_3"]
APPS = ["sharding", "django.contrib.contenttypes", "tests.sharding.notes"]


def migrate(*arguments: str, **options: object) -> None:
    call_command("migrate", *arguments, **{"verbosity": 0, **options})


def tables(alias: str) -> set[str]:
    """The tables of the app `notes` in a database."""
    names = connections[alias].introspection.table_names()
    return {name.removeprefix("notes_") for name in names if name.startswith("notes_")}


def fetch(alias: str, statement: str, *parameters: UUID) -> list[tuple[object, ...]]:
    with connections[alias].cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else []


@override_settings(INSTALLED_APPS=APPS)
class NotesTestCase(SimpleTestCase):
    """On empty databases, with the app `notes` installed."""

    databases = "__all__"

    def setUp(self) -> None:
        notes.ran.clear()
        self.enterContext(scratch_databases())

    def assertTables(self, *, primary: set[str], shards: set[str]) -> None:
        found = {alias: tables(alias) for alias in connections}
        expected = {alias: shards if alias in SHARD_ALIASES else set() for alias in found}
        self.assertEqual(found, expected | {"default": primary})

    def assertRan(self, **expected: list[str]) -> None:
        found: dict[str, list[str]] = {}
        for name, alias in notes.ran:
            found.setdefault(name, []).append(alias)
        self.assertEqual(found, expected)


class RenamedAndDeletedTests(NotesTestCase):
    def test_on_new_databases(self) -> None:
        migrate()
        self.assertTables(primary={"author"}, shards={"memo"})
        self.assertRan(
            topic=["default"], **dict.fromkeys(["note", "sketch", "memo"], SHARD_ALIASES)
        )
        self.assertEqual(fetch("default", "SELECT name FROM notes_author"), [("SQL",)])
        for alias in connections:
            applied = MigrationRecorder(connections[alias]).applied_migrations()
            names = {name for label, name in applied if label == "notes"}
            self.assertEqual(len(names), 4, alias)

    def test_on_existing_databases(self) -> None:
        migrate("notes", "0001")
        migrate("sharding")
        self.assertTables(primary={"author", "topic"}, shards={"note", "draft"})
        user_id = uuid4()
        for alias in SHARD_ALIASES:
            fetch(alias, "INSERT INTO notes_note VALUES (%s, 'kept')", user_id)
        migrate("notes", "0002")
        self.assertRan(note=SHARD_ALIASES, topic=["default"])
        migrate("notes", "0003")
        self.assertTables(primary={"author"}, shards={"memo"})
        migrate()
        self.assertRan(
            topic=["default"], **dict.fromkeys(["note", "sketch", "memo"], SHARD_ALIASES)
        )
        for alias in SHARD_ALIASES:
            rows = fetch(alias, "SELECT user_id, text FROM notes_memo")
            self.assertEqual(rows, [(user_id, "changed")])

    def test_the_content_type_is_renamed_too(self) -> None:
        migrate("notes", "0002")
        migrate("contenttypes")
        before = fetch("default", "SELECT id FROM django_content_type WHERE model = 'note'")
        self.assertEqual(len(before), 1)
        migrate()
        after = fetch("default", "SELECT id FROM django_content_type WHERE model = 'memo'")
        self.assertEqual(after, before)
        migrate("notes", "0002")
        back = fetch("default", "SELECT id FROM django_content_type WHERE model = 'note'")
        self.assertEqual(back, before)

    def test_taken_back(self) -> None:
        migrate()
        notes.ran.clear()
        migrate("notes", "0001")
        self.assertTables(primary={"author", "topic"}, shards={"note", "draft"})
        self.assertRan(memo=SHARD_ALIASES, sketch=SHARD_ALIASES, topic=["default", *SHARD_ALIASES])
        migrate("notes", "zero")
        self.assertTables(primary=set(), shards=set())
        migrate()
        self.assertTables(primary={"author"}, shards={"memo"})

    def test_one_database_at_a_time(self) -> None:
        for alias in reversed(list(connections)):
            migrate(database=alias)
        self.assertTables(primary={"author"}, shards={"memo"})
        shards = SHARD_ALIASES[::-1]
        self.assertRan(topic=["default"], **dict.fromkeys(["note", "sketch", "memo"], shards))


class WithoutHintsTests(NotesTestCase):
    @override_settings(MIGRATION_MODULES={"notes": "tests.sharding.notes.unnamed"})
    def test_says_what_to_write(self) -> None:
        migrate("notes", "0001")
        sentence = (
            "RunPython and RunSQL in the app 'notes', whose models live in several places, must "
            "say which model they are about, and none is given. Write "
            'hints={"model_name": "…"} in the operation, with one of: author, memo.'
        )
        for alias in connections:
            with self.subTest(alias), self.assertRaisesMessage(ShardingError, sentence):
                migrate(database=alias)
        self.assertRan()
        self.assertTables(primary={"author"}, shards={"memo"})


@override_settings(INSTALLED_APPS=APPS)
class PlaceByNameTests(SimpleTestCase):
    def test_by_todays_name_and_by_every_former_one(self) -> None:
        for name, place in {
            "Author": "default",
            "memo": SHARDS,
            "Note": SHARDS,
            "draft": SHARDS,
            "Sketch": SHARDS,
            "TOPIC": "default",
        }.items():
            with self.subTest(name):
                self.assertEqual(place_by_name("notes", name), place)

    def test_a_name_that_no_model_ever_had(self) -> None:
        message = (
            "model_name='nothing' names no model of it. .* author, draft, memo, note, sketch, topic"
        )
        with self.assertRaisesRegex(ShardingError, message):
            place_by_name("notes", "nothing")

    def test_an_app_that_is_not_installed(self) -> None:
        self.assertEqual(place_by_name("users", "profile"), "default")

    @override_settings(MIGRATION_MODULES={"notes": None})
    def test_an_app_without_migrations(self) -> None:
        self.assertEqual(place_by_name("notes", "memo"), SHARDS)
        with self.assertRaisesMessage(ShardingError, "one of: author, memo."):
            place_by_name("notes", None)
