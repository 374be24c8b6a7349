"""Sharded models in the admin: the same pages as over one database, and the same changes."""
