"""The settings under different environments, each read in a process of its own."""

from tests.config.isolated import SettingsTestCase, run

PRODUCTION = {
    "DATABASE_PRIMARY_URL": "postgresql://app:hunter2@127.0.0.1:1/app",
    "DATABASE_ANALYTICS_URL": "postgresql://app:hunter2@127.0.0.1:2/app",
    "DATABASE_SHARD_1_URL": "postgresql://app:hunter2@127.0.0.1:3/app",
    "SECRET_KEY": "$" + "kdz81-vq7_Tm" * 5,
    "ALLOWED_HOSTS": "app.example.com, www.example.com",
}

# What settings may do to the world is: read files. Compiled files are not written under -B.
WATCH = """
import os, sys

os.geteuid = lambda: 1000  # to root's servers another path applies
def watch(event, arguments):
    if event == "open" and not isinstance(arguments[0], int):
        path, mode, flags = arguments
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            found.append((event, path))
    elif event in REFUSED or event.startswith("socket.connect"):
        found.append((event, str(arguments)))

REFUSED = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.chown", "os.link",
           "os.symlink", "os.truncate", "os.fork", "os.exec", "os.posix_spawn", "os.system",
           "os.kill", "subprocess.Popen", "shutil.rmtree"}
found = []
sys.addaudithook(watch)
from config import settings
print(found)
"""


class DevelopmentTests(SettingsTestCase):
    def test_without_variables_the_embedded_servers_and_debug(self):
        embedded, debug, databases, hosts = self.read(
            {}, "EMBEDDED", "DEBUG", "DATABASES", "ALLOWED_HOSTS"
        )
        self.assertEqual((embedded, debug, hosts), (True, True, []))
        self.assertEqual(list(databases), ["default", "analytics", "shard_1", "shard_2", "shard_3"])
        self.assertTrue(databases["default"]["HOST"].startswith("/"))

    def test_reading_them_starts_nothing_and_writes_nothing(self):
        for environ in ({}, PRODUCTION):
            done = run("-c", WATCH, environ=environ, folder=self.folder)
            self.assertEqual(done.stdout, "[]\n", done.stderr)
        self.assertFalse((self.folder / "var").exists())

    def test_debug_off_needs_a_key_on_embedded_servers_too(self):
        self.refuses({"DEBUG": "false"}, "SECRET_KEY is missing")

    def test_checks_pass(self):
        self.assertIn("no issues", self.manage("check", environ={}))


class ProductionTests(SettingsTestCase):
    def test_with_urls_debug_is_off_and_https_on(self):
        self.assertEqual(
            self.read(PRODUCTION, "EMBEDDED", "DEBUG", "SECURE_SSL_REDIRECT", "ALLOWED_HOSTS"),
            [False, False, True, ["app.example.com", "www.example.com"]],
        )

    def test_a_secret_key_that_begins_with_a_dollar(self):
        """Django's own generator makes such keys, and django-environ takes them for a reference."""
        self.assertEqual(self.read(PRODUCTION, "SECRET_KEY"), [PRODUCTION["SECRET_KEY"]])

    def test_a_secret_key_is_required(self):
        self.refuses({**PRODUCTION, "SECRET_KEY": ""}, "SECRET_KEY is missing", "token_urlsafe")

    def test_allowed_hosts_are_required(self):
        for hosts in ("", " , "):
            self.refuses({**PRODUCTION, "ALLOWED_HOSTS": hosts}, "ALLOWED_HOSTS is missing")

    def test_a_missing_url_is_named(self):
        self.refuses({**PRODUCTION, "DATABASE_SHARD_1_URL": ""}, "DATABASE_SHARD_1_URL is missing")

    def test_debug_with_servers_of_ones_own(self):
        environ = {**PRODUCTION, "DEBUG": "True", "SECRET_KEY": "", "ALLOWED_HOSTS": ""}
        self.assertEqual(
            self.read(environ, "EMBEDDED", "DEBUG", "SECURE_SSL_REDIRECT"), [False, True, False]
        )

    def test_https_off(self):
        values = self.read(
            {**PRODUCTION, "HTTPS": "off"},
            "SESSION_COOKIE_SECURE",
            "SECURE_SSL_REDIRECT",
            "SECURE_HSTS_SECONDS",
        )
        self.assertEqual(values, [False, False, 0])

    def test_a_yes_or_no_that_is_neither(self):
        for variable in ("DEBUG", "HTTPS", "BEHIND_PROXY"):
            self.refuses({**PRODUCTION, variable: "ture"}, f"{variable} must be true or false")

    def test_the_proxy_header_is_believed_only_on_request(self):
        self.assertEqual(self.read(PRODUCTION, "SECURE_PROXY_SSL_HEADER"), [None])
        self.assertEqual(
            self.read({**PRODUCTION, "BEHIND_PROXY": "1"}, "SECURE_PROXY_SSL_HEADER"),
            [["HTTP_X_FORWARDED_PROTO", "https"]],
        )

    def test_origins(self):
        environ = {**PRODUCTION, "CSRF_TRUSTED_ORIGINS": "https://a.example, https://b.example"}
        self.assertEqual(
            self.read(environ, "CSRF_TRUSTED_ORIGINS"), [["https://a.example", "https://b.example"]]
        )

    def test_the_deployment_checks_are_clean(self):
        output = self.manage("check", "--deploy", "--fail-level", "INFO", environ=PRODUCTION)
        self.assertIn("no issues", output)


class SlotTests(SettingsTestCase):
    def test_slots_are_passed_on(self):
        self.assertEqual(
            self.read({"SHARD_SLOTS": "shard_1=0-999"}, "SHARD_SLOTS"), ["shard_1=0-999"]
        )

    def test_a_malformed_map_fails_the_check_and_names_the_variable(self):
        environ = {"SHARD_SLOTS": "shard_1=0-998"}
        done = run("manage.py", "check", environ=environ, folder=self.folder)
        self.assertEqual(done.returncode, 1)
        self.assertIn("SHARD_SLOTS", done.stderr)
        self.assertIn("slot 999", done.stderr)


class EnvFileTests(SettingsTestCase):
    def setUp(self) -> None:
        lines = [f"{variable}={value}" for variable, value in PRODUCTION.items()]
        (self.folder / ".env").write_text("\n".join(["# of one's own", *lines, ""]))
        self.addCleanup((self.folder / ".env").unlink)

    def test_the_file_is_read(self):
        self.assertEqual(self.read({}, "EMBEDDED", "SECRET_KEY"), [False, PRODUCTION["SECRET_KEY"]])

    def test_the_environment_goes_before_the_file(self):
        self.assertEqual(self.read({"ALLOWED_HOSTS": "other"}, "ALLOWED_HOSTS"), [["other"]])

    def test_an_empty_variable_hides_the_file_s(self):
        environ = dict.fromkeys(PRODUCTION, "")
        self.assertEqual(self.read(environ, "EMBEDDED", "DEBUG"), [True, True])
