"""Django's QuerySet over all shards."""
