"""From the environment's DATABASE_* variables to DATABASES."""

import contextlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from django.core.exceptions import ImproperlyConfigured
from django.test import SimpleTestCase
from hypothesis import assume, given
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo

from config.databases import PRIMARY, any_url, databases, processes

PRIMARY_URL = "DATABASE_PRIMARY_URL"
COMPLETE = {
    "DATABASE_PRIMARY_URL": "postgresql://app:secret@primary:5432/app",
    "DATABASE_ANALYTICS_URL": "postgresql://app:secret@analytics:5432/app",
    "DATABASE_SHARD_1_URL": "postgresql://app:secret@shard-1:5432/app",
}
EMBEDDED = {
    "default": "postgresql://postgres@/app?host=%2Ftmp%2Fpg%2Fdefault&port=5432",
    "analytics": "postgresql://postgres@/app?host=%2Ftmp%2Fpg%2Fanalytics&port=5432",
    "shard_1": "postgresql://postgres@/app?host=%2Ftmp%2Fpg%2Fshard_1&port=5432",
}
# What a URL and libpq can carry: no NUL, and no half of a surrogate pair.
passwords = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


def read(changed: Mapping[str, str] = {}) -> dict[str, dict[str, Any]]:
    return databases({**COMPLETE, **changed}, embedded={})


def primary(url: str) -> dict[str, Any]:
    return read({PRIMARY_URL: url})[PRIMARY]


class AliasTests(SimpleTestCase):
    def test_variables_become_aliases(self):
        self.assertEqual(list(read()), ["default", "analytics", "shard_1"])

    def test_the_parts_of_a_url(self):
        database = primary("postgresql://user:pass@host:5433/name")
        self.assertEqual(
            [database[key] for key in ("USER", "PASSWORD", "HOST", "PORT", "NAME")],
            ["user", "pass", "host", "5433", "name"],
        )

    def test_how_other_servers_reach_a_shard(self):
        found = read({"DATABASE_SHARD_1_REPLICATION_URL": "postgresql://mover:pw@10.0.0.1/app"})
        self.assertEqual(list(found), ["default", "analytics", "shard_1"])
        given = found["shard_1"]["REPLICATION"]
        self.assertEqual(
            (given["host"], given["user"], given["password"]), ("10.0.0.1", "mover", "pw")
        )
        with self.assertRaisesMessage(ImproperlyConfigured, "set, but not DATABASE_SHARD_2_URL"):
            read({"DATABASE_SHARD_2_REPLICATION_URL": "postgresql://10.0.0.2/app"})

    def test_the_short_scheme_is_one_too(self):
        self.assertEqual(primary("postgres://host/name")["HOST"], "host")

    def test_white_space_around_a_url_does_not_count(self):
        self.assertEqual(primary(" postgresql://host/name\n")["NAME"], "name")

    def test_shards_come_in_the_order_of_their_numbers(self):
        shards = {f"DATABASE_SHARD_{n}_URL": f"postgresql://s{n}/app" for n in (10, 2, 33, 3)}
        self.assertEqual(
            list(read(shards))[2:], ["shard_1", "shard_2", "shard_3", "shard_10", "shard_33"]
        )

    def test_without_a_url_the_embedded_servers(self):
        configured = databases({"HOME": "/", "DATABASE_PRIMARY_URL": ""}, embedded=EMBEDDED)
        self.assertEqual(list(configured), ["default", "analytics", "shard_1"])
        self.assertEqual(configured["analytics"]["HOST"], "/tmp/pg/analytics")
        self.assertEqual(configured["analytics"]["NAME"], "app")

    def test_any_url(self):
        self.assertFalse(any_url({}))
        self.assertFalse(any_url({"DATABASE_PRIMARY_URL": "", "DATABASE_POOL_MAX": "3"}))
        self.assertTrue(any_url({"DATABASE_SHARD_7_URL": "postgresql://host/name"}))

    def test_the_test_database_of_the_primary_is_made_first(self):
        depends = {alias: database["TEST"]["DEPENDENCIES"] for alias, database in read().items()}
        self.assertEqual(depends, {"default": [], "analytics": ["default"], "shard_1": ["default"]})

    def test_a_dead_server_fails_within_seconds(self):
        options = read()["shard_1"]["OPTIONS"]
        self.assertEqual((options["connect_timeout"], options["pool"]["timeout"]), (3, 5.0))


class ProcessesTests(SimpleTestCase):
    def test_by_itself_the_workers_and_one_sync(self):
        self.assertEqual(processes({}), 3)
        self.assertEqual(processes({"WEB_CONCURRENCY": "8"}), 9)
        self.assertEqual(processes({"WEB_CONCURRENCY": "8", "DATABASE_PROCESSES": "40"}), 40)

    def test_not_a_number(self):
        for variable in ("WEB_CONCURRENCY", "DATABASE_PROCESSES"):
            for value in ("0", "many", "-1"):
                with self.assertRaisesRegex(ImproperlyConfigured, variable):
                    processes({variable: value})


class PgBouncerTests(SimpleTestCase):
    def test_nothing_is_kept_between_transactions(self):
        database = primary("postgresql://host/name?pgbouncer=true&sslmode=require")
        self.assertTrue(database["DISABLE_SERVER_SIDE_CURSORS"])
        self.assertNotIn("pgbouncer", database["OPTIONS"])
        self.assertNotIn("options", database["OPTIONS"])
        self.assertEqual(database["OPTIONS"]["sslmode"], "require")

    def test_without_it(self):
        for query in ("", "?pgbouncer=false"):
            database = primary(f"postgresql://host/name{query}")
            self.assertFalse(database["DISABLE_SERVER_SIDE_CURSORS"])

    def test_what_it_would_refuse_is_refused_here(self):
        for more in ("schema=app", "schema=public", "options=-c%20geqo%3Doff"):
            with self.assertRaisesRegex(ImproperlyConfigured, "ALTER ROLE"):
                primary(f"postgresql://u:hunter2@host/name?pgbouncer=true&{more}")

    def test_something_else_than_true_or_false(self):
        with self.assertRaisesRegex(ImproperlyConfigured, "pgbouncer must be true or false"):
            primary("postgresql://host/name?pgbouncer=yes")


class UrlTests(SimpleTestCase):
    """Everything in a URL reaches libpq as it was meant."""

    def test_percent_encoding_in_every_part(self):
        database = primary("postgresql://us%40er:p%3Aw@h%2Fost:5432/na%2Fme")
        self.assertEqual(
            [database[key] for key in ("USER", "PASSWORD", "HOST", "NAME")],
            ["us@er", "p:w", "h/ost", "na/me"],
        )

    def test_ipv6(self):
        database = primary("postgresql://user:pass@[2001:db8::1]:5433/name")
        self.assertEqual((database["HOST"], database["PORT"]), ("2001:db8::1", "5433"))

    def test_several_hosts(self):
        database = primary("postgresql://a:5432,b:5433/name?target_session_attrs=read-write")
        self.assertEqual((database["HOST"], database["PORT"]), ("a,b", "5432,5433"))
        self.assertEqual(database["OPTIONS"]["target_session_attrs"], "read-write")

    def test_a_unix_socket(self):
        database = primary("postgresql:///name?host=/run/postgresql&user=me")
        self.assertEqual((database["HOST"], database["USER"]), ("/run/postgresql", "me"))

    def test_other_parameters_go_to_libpq(self):
        options = primary("postgresql://host/name?sslmode=require&connect_timeout=9")["OPTIONS"]
        self.assertEqual((options["sslmode"], options["connect_timeout"]), ("require", "9"))

    def test_a_space_in_a_parameter_stays_a_space_and_a_plus_a_plus(self):
        options = primary("postgresql://h/n?options=-c%20geqo%3Doff&application_name=a+b")[
            "OPTIONS"
        ]
        self.assertEqual((options["options"], options["application_name"]), ("-c geqo=off", "a+b"))

    def test_schema_becomes_the_search_path(self):
        options = primary("postgresql://host/name?schema=app")["OPTIONS"]
        self.assertEqual(options["options"], '-c search_path="app"')

    def test_schema_comes_after_options_given_by_hand(self):
        options = primary("postgresql://h/n?schema=app&options=-c%20geqo%3Doff")["OPTIONS"]
        self.assertEqual(options["options"], '-c geqo=off -c search_path="app"')

    def test_an_empty_schema_is_none(self):
        self.assertNotIn("options", primary("postgresql://host/name?schema=")["OPTIONS"])

    def test_a_strange_schema_is_quoted_for_sql_and_for_libpq(self):
        schema = quote('a "b" \\c\td')
        options = primary(f"postgresql://host/name?schema={schema}")["OPTIONS"]
        self.assertEqual(options["options"], '-c search_path="a\\ ""b""\\ \\\\c\\\td"')

    @given(passwords)
    def test_every_password_can_be_given_percent_encoded(self, password: str):
        database = primary(f"postgresql://user:{quote(password, safe='')}@host/name")
        self.assertEqual(
            [database[key] for key in ("PASSWORD", "HOST", "NAME")], [password, "host", "name"]
        )


class ErrorTests(SimpleTestCase):
    """Each names its variable and what to do, and never prints a password."""

    def refuses(self, changed: Mapping[str, str], *texts: str) -> str:
        with self.assertRaises(ImproperlyConfigured) as caught:
            read(changed)
        message = str(caught.exception)
        for text in texts:
            self.assertIn(text, message)
        self.assertTrue(caught.exception.__suppress_context__ or not caught.exception.__context__)
        return message

    def test_malformed_urls(self):
        for url in (
            "host/name",
            "mysql://user:hunter2@host/name",
            "postgresql:host",
            "host=h password=hunter2",
            "postgresql://user:hunter2@host:port/name",
            "postgresql://user:hunter2@host:0/name",
            "postgresql://user:hunter2@host:99999/name",
            "postgresql://user:hunter2@[::1/name",
            "postgresql://user:hunter2%@host/name",
            "postgresql://user:hunter2%zz@host/name",
            "postgresql://user:hunter2%00@host/name",
            "postgresql://user:hunter2@host/name?pool_size=3",
            "postgresql://user:hunter2@host/name?sslmode",
        ):
            with self.subTest(url=url):
                message = self.refuses({PRIMARY_URL: url}, PRIMARY_URL, "postgresql://user:")
                self.assertNotIn("hunter2", message)

    def test_a_url_without_a_database(self):
        for url in ("postgresql://user:hunter2@host", "postgresql://user:hunter2@host/?dbname="):
            message = self.refuses({PRIMARY_URL: url}, PRIMARY_URL, "names no database")
            self.assertNotIn("hunter2", message)

    def test_characters_that_would_split_the_password(self):
        """Its second half would be printed as the name of a host or of a database."""
        for password in ("hun@ter2", "12/ter2", "hun?ter2", "1/x?user=y", "hun/ter2", "@/:#?"):
            with self.subTest(password=password):
                url = f"postgresql://user:{password}@host/name"
                message = self.refuses({PRIMARY_URL: url}, PRIMARY_URL, "percent-encoded")
                self.assertNotIn("ter2", message)

    @given(passwords)
    def test_a_password_that_is_not_encoded_never_ends_up_elsewhere(self, password: str):
        with contextlib.suppress(ImproperlyConfigured):
            database = primary(f"postgresql://user:{password}@host/name")
            self.assertEqual(
                [database[key] for key in ("USER", "HOST", "PORT", "NAME")],
                ["user", "host", "", "name"],
            )

    @given(passwords)
    def test_no_error_prints_a_password(self, password: str):
        url = f"postgresql://user:{password}@host:port/name"
        message = self.refuses({PRIMARY_URL: url}, PRIMARY_URL)
        assume(password not in self.refuses({PRIMARY_URL: "other"}))  # "e", "port", ...
        self.assertNotIn(password, message)

    def test_missing_variables_are_named(self):
        for variable in COMPLETE:
            with self.subTest(variable=variable):
                self.refuses({variable: ""}, f"{variable} is missing")

    def test_all_missing_variables_are_named_at_once(self):
        with self.assertRaisesMessage(
            ImproperlyConfigured,
            "DATABASE_SHARD_2_URL is set but DATABASE_PRIMARY_URL, DATABASE_ANALYTICS_URL is",
        ):
            databases({"DATABASE_SHARD_2_URL": "postgresql://h/n"}, embedded=EMBEDDED)

    def test_a_shard_variable_that_is_misspelled(self):
        for name in ("X", "0", "01", "1_2", "-1", "٣"):
            variable = f"DATABASE_SHARD_{name}_URL"
            with self.subTest(variable=variable):
                self.refuses({variable: "postgresql://u:hunter2@h/n"}, variable, "n = 1, 2, 3")
        self.refuses({"DATABASE_SHARD_1": "postgresql://h/n"}, "DATABASE_SHARD_1 is not")

    def test_a_misspelled_variable_that_is_empty_is_none(self):
        self.assertEqual(len(read({"DATABASE_SHARD_X_URL": ""})), 3)

    def test_pool_numbers(self):
        pool = read({"DATABASE_POOL_MIN": "0", "DATABASE_POOL_MAX": "7"})["shard_1"]["OPTIONS"][
            "pool"
        ]
        self.assertEqual((pool["min_size"], pool["max_size"]), (0, 7))
        pool = read({"DATABASE_POOL_MIN": ""})[PRIMARY]["OPTIONS"]["pool"]
        self.assertEqual((pool["min_size"], pool["max_size"]), (2, 5))

    def test_malformed_pool_numbers(self):
        for variable, value in (
            ("DATABASE_POOL_MIN", "-1"),
            ("DATABASE_POOL_MIN", "two"),
            ("DATABASE_POOL_MAX", "0"),
            ("DATABASE_POOL_MAX", "5.0"),
            ("DATABASE_POOL_MAX", "٥"),
        ):
            with self.subTest(variable=variable, value=value):
                self.refuses({variable: value}, variable, repr(value))

    def test_pool_numbers_are_read_for_embedded_servers_too(self):
        with self.assertRaisesMessage(ImproperlyConfigured, "DATABASE_POOL_MAX"):
            databases({"DATABASE_POOL_MAX": "many"}, embedded=EMBEDDED)

    def test_a_smallest_pool_above_the_largest(self):
        self.refuses(
            {"DATABASE_POOL_MIN": "6"}, "DATABASE_POOL_MIN (6)", "larger than DATABASE_POOL_MAX (5)"
        )


class SameDatabaseTests(SimpleTestCase):
    def same(self, first: str, second: str) -> bool:
        changed = {"DATABASE_PRIMARY_URL": first, "DATABASE_SHARD_1_URL": second}
        try:
            read(changed)
        except ImproperlyConfigured as error:
            self.assertIn("DATABASE_PRIMARY_URL and DATABASE_SHARD_1_URL name", str(error))
            return True
        return False

    def test_the_same_database_under_two_variables(self):
        for first, second in (
            ("postgresql://h/n", "postgresql://h/n"),
            ("postgresql://a:1@h/n", "postgresql://b:2@h/n"),
            ("postgresql://h/n", "postgresql://h:5432/n"),
            ("postgresql://h/n", "postgresql://h/n?schema=public&sslmode=require"),
            ("postgresql://h/n", "postgresql:///n?host=h"),
        ):
            with self.subTest(first=first, second=second):
                self.assertTrue(self.same(first, second))

    def test_different_databases(self):
        for first, second in (
            ("postgresql://h/n", "postgresql://h/m"),
            ("postgresql://h/n", "postgresql://g/n"),
            ("postgresql://h/n", "postgresql://h:5433/n"),
            ("postgresql://h/n", "postgresql://h/n?schema=app"),
            ("postgresql:///n?hostaddr=10.0.0.1", "postgresql:///n?hostaddr=10.0.0.2"),
            ("postgresql:///n?host=/run/A", "postgresql:///n?host=/run/a"),
        ):
            with self.subTest(first=first, second=second):
                self.assertFalse(self.same(first, second))


class LibpqTests(SimpleTestCase):
    def test_what_is_passed_on_is_what_libpq_takes(self):
        options = primary("postgresql://h/n?schema=a&sslmode=require&keepalives=1")["OPTIONS"]
        del options["pool"]
        make_conninfo("", **options)  # raises for a name that libpq does not know
