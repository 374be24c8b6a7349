"""What browsers are told that the pages may load. That the pages work with it: test_browser."""

from django.test import TestCase


class ContentPolicyTests(TestCase):
    databases = "__all__"

    def test_every_answer_has_it(self) -> None:
        self.enterContext(self.assertLogs("django.request"))
        for path in ("/admin/login/", "/api/docs", "/api/users", "/nothing", "/"):
            policy = self.client.get(path)["Content-Security-Policy"]
            self.assertIn("default-src 'self'", policy)
            self.assertIn("frame-ancestors 'none'", policy)
            self.assertNotIn("http", policy)
