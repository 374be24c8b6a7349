"""What the tests of the API share: users of every kind, and clients that carry their tokens."""

import json
import logging
from typing import Any, ClassVar
from unittest import mock

from django.contrib.auth.models import Permission
from django.core.cache import cache
from django.test import Client, TestCase
from knox.models import AuthToken

from users.models import User
from users.services import create_user

__all__ = ["ApiTestCase", "allow", "with_token"]


def allow(user: User, *permissions: str) -> User:
    """Grant permissions, named like users.view_user."""
    for permission in permissions:
        app, codename = permission.split(".")
        user.user_permissions.add(
            Permission.objects.get(content_type__app_label=app, codename=codename)
        )
    return user


def with_token(user: User) -> Client:
    """Return a client whose requests carry a token of the user."""
    _, token = AuthToken.objects.create(user)
    return Client(headers={"Authorization": f"Bearer {token}"})


class ApiTestCase(TestCase):
    """Ada and Eve, and a member of the staff with the permissions that `granted` names."""

    databases = "__all__"
    granted: ClassVar[tuple[str, ...]] = (
        "users.view_user",
        "users.add_user",
        "users.change_user",
        "users.delete_user",
    )
    ada: User
    eve: User
    staff: User
    root: User

    @classmethod
    def setUpTestData(cls) -> None:
        cls.ada = create_user(
            email="ada@example.com",
            name="Ada",
            password="correct horse",
            profile={"country": "GB", "plan": "pro"},
        )
        cls.eve = create_user(email="eve@example.com", name="Eve")
        cls.staff = allow(create_user(email="staff@example.com", is_staff=True), *cls.granted)
        cls.root = create_user(email="root@example.com", is_staff=True, is_superuser=True)

    def setUp(self) -> None:
        cache.clear()  # throttles, and the age of the copies
        # Every refusal is a warning there.
        self.enterContext(mock.patch.object(logging.getLogger("django.request"), "disabled", True))

    def send(self, method: str, path: str, *, by: User | None, body: Any = None) -> Any:
        """Send a request as JSON, with a token of `by`."""
        client = with_token(by) if by else Client()
        return client.generic(
            method, path, b"" if body is None else json.dumps(body), "application/json"
        )

    def assertProblem(self, response: Any, code: int, **fields: str) -> Any:
        """Assert that it is a problem of RFC 9457 that says what to do; return it.

        `fields` are parts of what it says of each field.
        """
        self.assertEqual(response.status_code, code, response.content)
        self.assertEqual(response["Content-Type"], "application/problem+json")
        found = response.json()
        self.assertEqual((found["status"], found["type"]), (code, "about:blank"))
        self.assertTrue(found["title"] and found["detail"] and found["action"])
        said = {error["field"]: error["detail"] for error in found.get("errors", [])}
        if fields:
            self.assertEqual(said.keys(), {name.replace("__", ".") for name in fields})
        for name, part in fields.items():
            self.assertIn(part, said[name.replace("__", ".")])
        return found
