"""Django's PostgreSQL backend, with errors that say which database failed (see base.py)."""
