"""The API as it runs, asked by schemathesis whatever its description allows, and what it does not.

No answer is a 5xx, none is outside the description, and none shows a user another one's data.
Longer with SOAK=1.
"""

import os
import subprocess
import sys
from typing import Any

from django.conf import settings
from knox.models import AuthToken

from tests.analytics.sync.support import SyncTestCase, sync
from tests.config.serving import Site
from users.models import Activity, Profile, User
from users.services import create_user

SOAK = bool(os.environ.get("SOAK"))
EXAMPLES = 300 if SOAK else 3  # for each operation
PHASES = "coverage,fuzzing" if SOAK else "fuzzing"
MARK = "belongs-to-somebody-else"
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "ignored_auth",
    "nothing_of_others",
)


class FuzzTests(SyncTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.own = create_user(email="own@example.com", profile={"country": "CH"})
        self.other = create_user(
            email=f"{MARK}@example.com", name=MARK, profile={"bio": MARK, "settings": {"a": MARK}}
        )
        Activity.objects.create(profile_id=self.other.pk, kind=MARK, payload={"a": MARK})
        sync()
        self.site = Site(
            self,
            f"fuzz-{os.getpid()}",
            API_RATE_ANONYMOUS="off",
            API_RATE_USER="off",
            API_RATE_LOGIN="off",
        )

    def fuzz(self, user: User, *options: str, mark: str = "") -> None:
        _, token = AuthToken.objects.create(user)
        given: dict[str, Any] = {
            "SCHEMATHESIS_HOOKS": "tests.config.fuzz_hooks",
            "FUZZ_OWN": str(self.own.pk),
            "FUZZ_OTHER": str(self.other.pk),
            "FUZZ_MARK": mark,
        }
        command = [sys.executable, "-m", "schemathesis.cli", "run"]
        command += [f"http://127.0.0.1:{self.site.port}/api/schema?format=json"]
        command += ["--header", f"Authorization: Bearer {token}", "--checks", ",".join(CHECKS)]
        command += ["--phases", PHASES, "--max-examples", str(EXAMPLES)]
        command += ["--seed", "1", "--no-color", "--workers", "1", *options]
        # Logging out would end the token that all others are sent with.
        command += ["--exclude-path-regex", "/logout"]
        done = subprocess.run(
            command,
            cwd=settings.BASE_DIR,
            env=os.environ | given,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stdout[-8000:] + done.stderr[-2000:])

    def test_by_a_user(self) -> None:
        before = self.others_data()
        # They may delete themselves: then the rest would be asked by nobody.
        self.fuzz(self.own, "--exclude-method", "DELETE", mark=MARK)
        self.assertEqual(self.others_data(), before)

    def others_data(self) -> list[Any]:
        key = self.other.pk
        activities = Activity.objects.filter(profile=key)
        owned = Profile.objects.filter(pk=key).values(), activities.values()
        return [*User.objects.filter(pk=key).values(), *owned[0], *owned[1]]

    def test_by_a_superuser(self) -> None:
        root = create_user(email="root@example.com", is_staff=True, is_superuser=True)
        self.fuzz(root)
