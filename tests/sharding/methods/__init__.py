"""Every method of querysets and managers: which shards it asks, and what it answers."""
