"""An app whose models are those of users, as they would be with one database."""
