"""/api/users, /api/profiles, /api/login: HTTP around `users.services`.

What every part of the API shares is here too: `views.ApiView`, permissions, parsers, pages.
"""
