"""The addresses that belong to no app."""

from django.test import SimpleTestCase


class UrlTests(SimpleTestCase):
    def test_the_root_leads_to_the_admin(self):
        self.assertRedirects(self.client.get("/"), "/admin/", fetch_redirect_response=False)

    def test_an_id_that_is_no_uuid_is_not_found(self):
        self.enterContext(self.assertLogs("django.request"))
        self.assertEqual(self.client.get("/api/users/1").status_code, 404)
