"""docker-compose.yml, .env.example and Dockerfile say what the code reads."""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any
from unittest import mock

import environ
import yaml
from django.conf import settings
from django.test import SimpleTestCase

from config import pgserver
from config.databases import databases
from sharding.slots import SlotMap
from tests.config.isolated import SettingsTestCase, run
from tests.config.serving import Site

FOLDER = settings.BASE_DIR
ALIASES = ["default", "analytics", "shard_1", "shard_2", "shard_3"]
SERVERS = ["primary", "analytics", "shard_1", "shard_2", "shard_3"]
SITES = ["migrate", "web", "sync"]
GIVEN = {
    "POSTGRES_PASSWORD": "0a1b2c3d4e5f",
    "SECRET_KEY": "kdz81-vq7_Tm" * 5,
    "ALLOWED_HOSTS": "app.example.com",
}
URLS = {
    "DATABASE_PRIMARY_URL": "postgresql://primary/app",
    "DATABASE_ANALYTICS_URL": "postgresql://analytics/app",
    **{f"DATABASE_SHARD_{n}_URL": f"postgresql://shard_{n}/app" for n in (1, 2, 3)},
}

_REFERENCE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")

# For servers that know each other under other addresses, which those of compose do not.
REPLICATION = "DATABASE_SHARD_1_REPLICATION_URL"


class Recorder(dict[str, str]):
    """An environment that notes which variables were looked for and not found."""

    def __init__(self) -> None:
        super().__init__()
        self.missed: set[str] = set()

    def __missing__(self, variable: str) -> str:
        self.missed.add(variable)
        raise KeyError(variable)

    def get(self, variable: str, default: Any = None) -> Any:
        self.missed.add(variable)
        return default


def read(module: str) -> tuple[dict[str, Any], set[str]]:
    """Run a module of config/ with no variables; return its values, and those that it missed."""
    recorder = Recorder()
    with (
        mock.patch.object(os, "environ", recorder),
        mock.patch.object(environ.Env, "read_env"),
        mock.patch.object(tempfile, "mkdtemp", return_value="/nowhere"),
    ):
        values = runpy.run_path(str(FOLDER / "config" / module))
    return values, recorder.missed


def read_by(module: str) -> set[str]:
    """The variables that a module of config/ looks for."""
    # The system's, for the sockets of the embedded servers; and what gunicorn.py sets itself.
    return read(module)[1] - {"TMPDIR", "PROMETHEUS_MULTIPROC_DIR"}


def read_by_site() -> set[str]:
    """All that configures the site. The URLs are found by their form, so they stand here."""
    return read_by("settings.py") | read_by("gunicorn.py") | set(URLS)


def interpolated(value: Any, environ: dict[str, str]) -> Any:
    """Replace ${NAME}, ${NAME:-default} and ${NAME:?message} everywhere, as compose does."""
    if isinstance(value, dict):
        return {key: interpolated(item, environ) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolated(item, environ) for item in value]
    if not isinstance(value, str):
        return value
    return _REFERENCE.sub(lambda match: _replacement(match, environ), value)


def _replacement(match: re.Match[str], environ: dict[str, str]) -> str:
    name, kind, text = match.groups()
    if value := environ.get(name):
        return value
    if kind == "?":
        raise KeyError(name)
    return text or ""


class ComposeTestCase(SettingsTestCase):
    text = (FOLDER / "docker-compose.yml").read_text()

    def setUp(self) -> None:
        self.services = self.services_with({})

    def services_with(self, changed: dict[str, str]) -> dict[str, Any]:
        services: dict[str, Any] = interpolated(yaml.safe_load(self.text), {**GIVEN, **changed})
        return services["services"]

    def environment(self, service: str) -> dict[str, str]:
        variables = self.services[service]["environment"]
        return {name: str(value) for name, value in variables.items()}


class SiteTests(ComposeTestCase):
    def test_each_reads_its_databases_from_the_servers(self):
        for service in SITES:
            with self.subTest(service=service):
                configured = databases(self.environment(service), embedded={})
                self.assertEqual(list(configured), ALIASES)
                self.assertEqual([d["HOST"] for d in configured.values()], SERVERS)
                for server, database in zip(SERVERS, configured.values(), strict=True):
                    given = self.environment(server)
                    self.assertEqual(database["USER"], given["POSTGRES_USER"])
                    self.assertEqual(database["NAME"], given["POSTGRES_DB"])
                    self.assertEqual(database["PASSWORD"], given["POSTGRES_PASSWORD"])

    def test_each_is_given_what_config_reads_and_nothing_else(self):
        expected = (read_by("settings.py") | set(URLS)) - {"DEBUG"}
        for service in SITES:
            with self.subTest(service=service):
                more = read_by("gunicorn.py") if service == "web" else set()
                self.assertEqual(set(self.environment(service)), expected | more)

    def test_the_deployment_checks_are_clean(self):
        deploy = ("check", "--deploy", "--fail-level", "INFO")
        self.assertIn("no issues", self.manage(*deploy, environ=self.environment("web")))

    def test_options_reach_the_site(self):
        changed = {"HTTPS": "false", "DATABASE_POOL_MAX": "9", "SHARD_SLOTS": "shard_2=0-999"}
        self.services = self.services_with(changed)
        self.assertEqual(
            {name: self.environment("web")[name] for name in changed},
            changed,
        )

    def test_the_commands_exist(self):
        for service, words in (
            ("migrate", ["migrate"]),
            ("sync", ["sync_analytics", "--follow"]),
        ):
            self.assertIn(f"manage.py {' '.join(words)}", self.services[service]["command"])
            self.manage(*words, "--help", environ=self.environment(service))
        for file in ("config/gunicorn.py", "config/wsgi.py"):
            self.assertTrue((FOLDER / file).exists())
        command = "gunicorn -c config/gunicorn.py config.wsgi"
        self.assertEqual(self.services["web"]["command"], command)

    def test_they_wait_for_the_servers_and_for_migrate(self):
        healthy = {server: {"condition": "service_healthy"} for server in SERVERS}
        migrated = {"migrate": {"condition": "service_completed_successfully"}}
        self.assertEqual(self.services["migrate"]["depends_on"], healthy)
        for service in ("web", "sync"):
            self.assertEqual(self.services[service]["depends_on"], healthy | migrated)

    def test_the_health_of_the_site_is_asked_for(self):
        program = self.services["web"]["healthcheck"]["test"]
        self.assertEqual(program[:3], ["CMD", "python", "-c"])
        site = Site(self, "health", ALLOWED_HOSTS="app.example.com,127.0.0.1", HTTPS="on")
        env = {"ALLOWED_HOSTS": "app.example.com,127.0.0.1", "PORT": str(site.port)}
        self.assertEqual(run("-c", program[3], environ=env).stderr, "")
        site.stop()
        self.assertIn("refused", run("-c", program[3], environ=env).stderr)

    def test_they_are_given_the_time_to_end(self):
        graceful = int(read("gunicorn.py")[0]["graceful_timeout"])
        for service in SITES:
            given = self.services[service]["stop_grace_period"]
            self.assertGreater(int(given.removesuffix("s")), graceful)

    def test_the_site_is_published_on_this_machine_only(self):
        self.assertEqual(self.services["web"]["ports"], ["127.0.0.1:8000:8000"])
        self.assertEqual(self.environment("web")["HOST"], "0.0.0.0")


class ServerTests(ComposeTestCase):
    def test_these_are_all_services(self):
        self.assertEqual(set(self.services), {*SERVERS, *SITES})

    def test_each_keeps_its_data_in_a_volume_of_its_own(self):
        for server in SERVERS:
            self.assertEqual(self.services[server]["volumes"], [f"{server}:/var/lib/postgresql"])

    def test_they_run_with_the_settings_of_the_embedded_ones(self):
        local = {
            *("listen_addresses", "port", "unix_socket_permissions", "timezone", "log_timezone"),
            *("log_destination", "logging_collector"),
        }
        expected = {
            name: str(value) for name, value in pgserver._SETTINGS.items() if name not in local
        }
        for server in SERVERS:
            words = shlex.split(self.services[server]["command"])
            self.assertEqual(words[:2], ["postgres", "-c"])
            self.assertEqual(dict(word.split("=") for word in words if "=" in word), expected)

    def test_they_are_initialised_like_the_embedded_ones(self):
        for server in SERVERS:
            given = set(self.environment(server)["POSTGRES_INITDB_ARGS"].split())
            self.assertLessEqual(given, set(pgserver._INITDB))

    def test_they_are_of_the_embedded_version(self):
        for server in SERVERS:
            self.assertEqual(self.services[server]["image"], "postgres:18")

    def test_their_health_is_asked_for(self):
        for server in SERVERS:
            self.assertIn("pg_isready", self.services[server]["healthcheck"]["test"])


class SecretTests(ComposeTestCase):
    def test_without_secrets_it_does_not_start(self):
        for name in GIVEN:
            with self.subTest(name=name), self.assertRaises(KeyError):
                self.services_with({name: ""})

    def test_every_variable_it_takes_is_in_the_example(self):
        names = {match[1] for match in _REFERENCE.finditer(self.text)}
        self.assertLessEqual(names, set(example()))


class ConfigCommandTests(SimpleTestCase):
    def test_compose_accepts_the_file(self):
        command = compose_command()
        if command is None:
            self.skipTest("docker compose is not installed")
        self.assertEqual(self.config(command, GIVEN), "")
        self.assertIn("see .env.example", self.config(command, {}))

    def config(self, command: list[str], given: dict[str, str]) -> str:
        """Return what `docker compose config` has to say against the file; nothing is good."""
        with tempfile.NamedTemporaryFile("w", suffix=".env") as env_file:
            env_file.writelines(f"{name}={value}\n" for name, value in given.items())
            env_file.flush()
            done = subprocess.run(
                [*command, "--env-file", env_file.name, "-f", "docker-compose.yml", "config"],
                cwd=FOLDER,
                env={"PATH": os.environ["PATH"]},
                capture_output=True,
                text=True,
                check=False,
            )
        return done.stderr if done.returncode else ""


def compose_command() -> list[str] | None:
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            done = subprocess.run([*command, "version"], capture_output=True, check=False)
            if done.returncode == 0:
                return command
    return None


def example() -> dict[str, str]:
    """The variables of .env.example, all of which stand behind a #."""
    return dict(_example_lines())


def _example_lines() -> Iterator[tuple[str, str]]:
    for line in (FOLDER / ".env.example").read_text().splitlines():
        if match := re.fullmatch(r"# ([A-Z][A-Z0-9_]*)=(\S*)", line):
            yield match[1], match[2]


class ExampleTests(SettingsTestCase):
    def test_copied_as_it_is_it_changes_nothing(self):
        for line in (FOLDER / ".env.example").read_text().splitlines():
            self.assertTrue(not line or line.startswith("# "), line)

    def test_it_names_what_config_and_compose_read_and_nothing_else(self):
        self.assertEqual(set(example()), read_by_site() | {"POSTGRES_PASSWORD", REPLICATION})

    def test_each_variable_once(self):
        names = [name for name, _ in _example_lines()]
        self.assertEqual(len(names), len(set(names)))

    def test_with_every_line_in_force_it_is_a_production_site(self):
        given = {**example(), "SECRET_KEY": GIVEN["SECRET_KEY"]}
        embedded, debug, found = self.read(given, "EMBEDDED", "DEBUG", "DATABASES")
        self.assertEqual((embedded, debug, list(found)), (False, False, ALIASES))
        output = self.manage("check", "--deploy", "--fail-level", "INFO", environ=given)
        self.assertIn("no issues", output)

    def test_the_numbers_and_switches_are_the_ones_that_hold_without_them(self):
        urls = {name: value for name, value in example().items() if name in URLS}
        least = {**urls, **GIVEN}
        shown = {
            name: example()[name]
            for name in ("DATABASE_POOL_MIN", "DATABASE_POOL_MAX", "DEBUG", "HTTPS", "BEHIND_PROXY")
        }
        names = ("DATABASES", "DEBUG", "HTTPS", "SECURE_PROXY_SSL_HEADER")
        self.assertEqual(self.read(least, *names), self.read({**least, **shown}, *names))

    def test_the_slots_are_those_that_hold_without_them(self):
        shards = [alias for alias in ALIASES if alias.startswith("shard_")]
        self.assertEqual(example()["SHARD_SLOTS"], str(SlotMap.even(shards)))


class DockerfileTests(SimpleTestCase):
    text = (FOLDER / "Dockerfile").read_text()

    def test_the_image_runs_as_an_ordinary_user(self):
        self.assertIn("\nUSER app\n", self.text)

    def test_the_image_holds_what_the_site_needs_and_nothing_else(self):
        lines = (FOLDER / ".dockerignore").read_text().splitlines()
        self.assertIn("*", lines)
        self.assertEqual(
            {line[1:] for line in lines if line.startswith("!")},
            {"manage.py", "requirements.txt", "config", "sharding", "users", "analytics"},
        )
