"""Migrations of which one fails, in one database and not by a database's error."""
