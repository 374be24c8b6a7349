"""Servers of a test's own, with the tables of the sync, that may be killed and restored."""

import shutil
from pathlib import Path

from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.db import connections, models

from analytics.models import (
    ProfileAnalytics,
    SyncArrival,
    SyncCheckpoint,
    SyncPosition,
    SyncRun,
    UserAnalytics,
)
from config import embedded
from sharding import bootstrap
from sharding.models import Cluster, Move, Shard, Slot, SlotOwner
from tests.analytics.sync.support import SyncTestCase, execute
from tests.outage import disconnect, own_servers
from users.models import Profile, ProfileChange, User, UserChange

__all__ = ["ServersTestCase"]

_TABLES: dict[str, list[type[models.Model]]] = {
    "default": [
        *(ContentType, Permission, Group, User, UserChange, SyncPosition),
        *(Cluster, Slot, Shard, Move),
    ],
    "analytics": [UserAnalytics, ProfileAnalytics, SyncCheckpoint, SyncRun],
    "shard_1": [Profile, ProfileChange, SyncPosition, SyncArrival, SlotOwner],
}
_LOGGED: dict[str, type[models.Model]] = {"default": User, "shard_1": Profile}


class ServersTestCase(SyncTestCase):
    """Each of `aliases` is a server of its own."""

    cluster: embedded.Cluster

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        owned = execute("shard_1", "SELECT slot, state FROM sharding_slotowner")
        cls.cluster = cls.enterClassContext(own_servers(*cls.aliases))
        for alias in cls.aliases:
            with connections[alias].schema_editor() as editor:
                for table in _TABLES[alias]:
                    editor.create_model(table)
            if model := _LOGGED.get(alias):
                for trigger in model._meta.triggers:  # type: ignore[attr-defined]
                    trigger.install(model, database=alias)
        if "default" in cls.aliases:
            bootstrap.fill("default")
        if "shard_1" in cls.aliases:
            with connections["shard_1"].cursor() as cursor:
                cursor.executemany("INSERT INTO sharding_slotowner VALUES (%s, %s)", owned)

    def revive(self, alias: str) -> None:
        """Start a server that was killed."""
        if not self.cluster.running(alias):
            self.cluster.start(alias)
        disconnect(alias)

    def stop(self, alias: str) -> None:
        disconnect(alias)
        self.cluster.stop(alias)

    def copy(self, alias: str) -> Path:
        """Copy a server's data folder while it is stopped."""
        self.stop(alias)
        folder = self.cluster.home / alias
        saved = self.cluster.home / f"{alias}.saved"
        shutil.rmtree(saved, ignore_errors=True)
        shutil.copytree(folder, saved, symlinks=True)
        self._own(folder, saved)
        self.addCleanup(shutil.rmtree, saved, ignore_errors=True)
        self.cluster.start(alias)
        return saved

    def restore(self, alias: str, saved: Path) -> None:
        """Put a copy, which is gone then, in place of a server's data."""
        self.stop(alias)
        folder = self.cluster.home / alias
        shutil.rmtree(folder)
        saved.rename(folder)
        self.cluster.start(alias)

    def _own(self, folder: Path, copy: Path) -> None:
        """As root, the servers run as another user."""
        owner = folder.stat()
        for path in [copy, *copy.rglob("*")]:
            shutil.chown(path, owner.st_uid, owner.st_gid)
