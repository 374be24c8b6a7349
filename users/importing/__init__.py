"""Importing users from CSV and NDJSON: accounts to the primary, profiles to their shards.

`source` opens a file, `records` and `reading` turn its lines into valid rows or reasons, `values`
knows the columns, `writing` brings batches to the servers with the SQL of `staging`, and `running`
ties them together.
"""

from users.importing.errors import ImportFailed
from users.importing.running import Options, Totals, import_users, rejected_path

__all__ = ["ImportFailed", "Options", "Totals", "import_users", "rejected_path"]
