"""Every public name of Django's QuerySet, Manager and related managers, and what becomes of it.

docs/orm.md shows this as tables. An async method stands beside the one that it is the twin of.

lazy        sends nothing; what it returns is asked for where its key says
fanned out  one statement to each shard, and how their answers become one
routed      to the one shard of the key in its arguments
refused     over several shards; the beginning of the message. With one key it is Django's own.
plain       no query, or nothing that has to do with shards
"""

__all__ = ["MANAGER", "QUERYSET", "RELATED", "TABLES", "by_name"]

QUERYSET = {
    "across_shards": "lazy: allows every shard",
    "alias": "lazy",
    "all": "lazy",
    "annotate": "lazy",
    "complex_filter": "lazy",
    "dates": "lazy: the dates of all shards, each once",
    "datetimes": "lazy: the moments of all shards, each once",
    "defer": "lazy: the key is never left out",
    "distinct": "lazy: what several shards have is there once",
    "exclude": "lazy: what is excluded says nothing of the shard",
    "filter": "lazy: a key in it decides the shards",
    "none": "lazy: no rows, and no statement",
    "only": "lazy: the key is always loaded",
    "order_by": "lazy: merged in this order",
    "prefetch_related": "lazy: asks the shards of the objects that were found, each once",
    "reverse": "lazy",
    "select_related": "lazy: the related rows lie on the same shard",
    "using": "lazy: names the database; before any key",
    "values": "lazy",
    "values_list": "lazy",
    "aggregate aaggregate": "fanned out: combined from each shard's parts",
    "bulk_create abulk_create": "fanned out: each object to its shard; not atomic together",
    "bulk_update abulk_update": "fanned out: each object to its shard; not atomic together",
    "count acount": "fanned out: added up; of a slice no more than it holds",
    "delete adelete": "fanned out: added up, by model too; not atomic together",
    "earliest aearliest": "fanned out: the first of the shards' first ones",
    "exists aexists": "fanned out: true where it is on any shard",
    "explain aexplain": "fanned out: each shard's plan, under its name",
    "first afirst": "fanned out: the first of the shards' first ones",
    "get aget": "fanned out: of all shards together there must be exactly one",
    "in_bulk ain_bulk": "fanned out: only to the shards of the ids, where these say so",
    "iterator aiterator": "fanned out: streams from server-side cursors, merged as they come",
    "last alast": "fanned out: the last of the shards' last ones",
    "latest alatest": "fanned out: the last of the shards' last ones",
    "update aupdate": "fanned out: added up; not atomic together; never the key",
    "contains acontains": "routed: by the object's key",
    "create acreate": "routed: by the key it is given",
    "get_or_create aget_or_create": "routed: the key stands beside the defaults, not in them",
    "update_or_create aupdate_or_create": "routed: the key stands beside the defaults, not in them",
    "difference": "refused: difference() is refused over several shards",
    "extra": "refused: extra() is refused over several shards",
    "intersection": "refused: intersection() is refused over several shards",
    "raw": "refused: This call on users.Profile needs one shard",
    "select_for_update": "refused: select_for_update() is refused over several shards",
    "union": "refused: union() is refused over several shards",
    "as_manager": "plain: makes a ShardedManager",
    "db": "plain: the one database, else an error",
    "missing_shards": "plain: after a partial answer, who did not answer",
    "ordered": "plain",
    "query": "plain",
    "resolve_expression": "plain: a subquery; see there",
}

MANAGER = {
    "auto_created": "plain",
    "check": "plain",
    "contribute_to_class": "plain",
    "creation_counter": "plain",
    "db_manager": "plain: names the database; before any key",
    "deconstruct": "plain",
    "from_queryset": "plain: makes a ShardedManager",
    "get_queryset": "lazy",
    "use_in_migrations": "plain: true, so that migrations know the model for a sharded one",
}

RELATED = {
    "add aadd": "routed: to the object's shard; refuses what is another user's",
    "set aset": "routed: to the object's shard; refuses what is another user's",
    "core_filters": "plain",
    "do_not_call_in_templates": "plain",
    "field": "plain",
    "get_prefetch_queryset": "plain",
    "get_prefetch_querysets": "plain: of objects of several shards too",
    "instance": "plain",
    "model": "plain",
    "name": "plain",
}

TABLES = {"QuerySet": QUERYSET, "Manager": MANAGER, "Related manager": RELATED}


def by_name(table: dict[str, str]) -> dict[str, str]:
    """Return a table with a line for each name."""
    return {name: text for names, text in table.items() for name in names.split()}
