"""The site for ASGI servers: Django, no more requests at once than there are connections, and an
end at which every connection is closed."""

import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from asgiref.sync import sync_to_async
from django.core.asgi import get_asgi_application

from sharding import conf
from sharding.databases import DatabaseManager

__all__ = ["application"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Site:
    """Answers requests by Django, and the server's `lifespan` itself.

    Each request has a thread and keeps the connections that it has asked for until its end. More
    requests at once than a pool has connections would wait for one another's, each holding what
    the other wants. So they wait here, where they hold nothing.
    """

    def __init__(self) -> None:
        self.django: Any = get_asgi_application()
        self.turns = asyncio.Semaphore(conf.smallest_pool())

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        else:
            async with self.turns:
                await self.django(scope, receive, send)


async def _live(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await sync_to_async(DatabaseManager().disconnect)()
    await send({"type": "lifespan.shutdown.complete"})


os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
application = Site()
