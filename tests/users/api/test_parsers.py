"""Bodies of requests that no row could hold."""

import json
from typing import Any

from django.test import override_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.users.api import ApiTestCase, with_token

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.characters(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


class ParserTests(ApiTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.client = with_token(self.ada)
        self.path = f"/api/users/{self.ada.pk}"

    def patch(self, body: Any) -> Any:
        return self.client.patch(self.path, body, "application/json")

    def test_what_is_refused(self):
        for body in (
            "x",
            "[]",
            "null",
            '"text"',
            "{" * 100_000,
            '{"profile": {"settings": {"a": ' + "[" * 60 + "]" * 60 + "}}}",
            r'{"name": "a\u0000b"}',
            r'{"profile": {"settings": {"\u0000": 1}}}',
            r'{"profile": {"settings": {"a": ["\ud800"]}}}',
            '{"profile": {"settings": {"a": 1e999}}}',
            '{"profile": {"settings": {"a": NaN}}}',
            '{"profile": {"settings": {"a": ' + "1" * 5000 + "}}}",
            b'{"name": "\xff"}',
        ):
            with self.subTest(body[:40]):
                self.assertProblem(self.patch(body), 400)

    def test_too_large_and_no_json(self):
        with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=100):
            self.assertProblem(self.patch(json.dumps({"name": "x" * 100})), 413)
        response = self.client.patch(self.path, "name=x", "application/x-www-form-urlencoded")
        self.assertProblem(response, 415)

    def test_everything_else_is_stored_as_it_was(self):
        @settings(max_examples=60, deadline=None)
        @given(st.dictionaries(st.text(), JSON, max_size=4))
        def check(value: dict[str, Any]) -> None:
            response = self.patch(json.dumps({"profile": {"settings": value}}))
            if response.status_code == 200:
                # PostgreSQL writes 1e16 as 10000000000000000.
                stored = json.loads(response.content, parse_int=float)["profile"]["settings"]
                self.assertEqual(stored, json.loads(json.dumps(value), parse_int=float))
            else:
                self.assertProblem(response, 400)

        check()
