"""An app like `users`, for migrations: one of its models lives on the primary, another on shards.

Migrations in `migrations` renamed and deleted models that stood beside these.
"""

# Which function of a migration ran in which database.
ran: list[tuple[str, str]] = []
