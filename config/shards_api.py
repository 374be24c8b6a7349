"""/api/shards: which shards there are, and which part of the users each has."""

from collections import Counter
from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from sharding import conf, slot_cache
from sharding.health import unreachable
from users.api.pages import NothingAsked, queried
from users.api.views import ApiView

__all__ = ["ShardsView"]


class ShardSerializer(serializers.Serializer[dict[str, Any]]):
    alias = serializers.CharField()
    state = serializers.ChoiceField(["up", "down"])
    slots = serializers.IntegerField(help_text="How many of the 1000 slots it owns.")


class ShardsSerializer(serializers.Serializer[dict[str, Any]]):
    map_version = serializers.IntegerField()
    shards = ShardSerializer(many=True)


class ShardsView(ApiView):
    """The shards. For staff."""

    staff_permissions: ClassVar = {"GET": "sharding.view_slot"}

    @extend_schema(operation_id="shards_list", responses=ShardsSerializer)
    def get(self, request: Request) -> Response:
        """List the shards, with what each owns and whether it can be reached."""
        queried(request, NothingAsked)
        slot_map, down = slot_cache.current(), unreachable(conf.shards())
        slots = Counter(slot_map.owners)
        shards = [
            {"alias": alias, "state": "down" if alias in down else "up", "slots": slots[alias]}
            for alias in conf.shards()
        ]
        return Response({"map_version": slot_map.version, "shards": shards})
