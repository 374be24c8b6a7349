"""The addresses that belong to no app."""

from django.test import SimpleTestCase, override_settings


class UrlTests(SimpleTestCase):  # which fails on any query
    def test_the_root_leads_to_the_admin(self):
        self.assertRedirects(self.client.get("/"), "/admin/", fetch_redirect_response=False)

    def test_healthz_answers_without_a_database(self):
        response = self.client.get("/healthz")
        self.assertEqual((response.status_code, response.content), (200, b"ok"))

    @override_settings(SECURE_SSL_REDIRECT=True)
    def test_healthz_is_not_redirected_to_https(self):
        self.assertEqual(self.client.get("/healthz").status_code, 200)

    def test_an_id_that_is_no_uuid_is_not_found(self):
        self.enterContext(self.assertLogs("django.request"))
        self.assertEqual(self.client.get("/api/users/1").status_code, 404)
