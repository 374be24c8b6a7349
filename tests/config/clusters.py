"""Embedded servers in temporary folders, for the tests of config.embedded."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg

from config.embedded import Cluster

__all__ = [
    "PROJECT",
    "TWO",
    "as_root",
    "command_line",
    "make_cluster",
    "make_folder",
    "mode_of",
    "query",
]

PROJECT = Path(__file__).resolve().parent.parent.parent
TWO = ("default", "shard_1")
as_root = unittest.skipUnless(os.geteuid() == 0, "only root runs the servers as another user")


def make_folder(test: unittest.TestCase, *, mode: int = 0o755) -> Path:
    """A temporary folder; 0o755 so that as root the servers live in it and not in /var/lib."""
    folder = Path(tempfile.mkdtemp())
    test.addCleanup(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(mode)
    return folder


def make_cluster(
    test: unittest.TestCase, aliases: Sequence[str] = ("default",), folder: Path | None = None
) -> Cluster:
    cluster = Cluster(folder or make_folder(test) / "postgres", aliases, durable=False)
    test.addCleanup(cluster.destroy)
    return cluster


def query(cluster: Cluster, alias: str, statement: str) -> list[Any]:
    with psycopg.connect(cluster.url(alias), autocommit=True) as connection:
        cursor = connection.execute(statement)
        return [row[0] for row in cursor] if cursor.description else []


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def command_line(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "config.embedded", *arguments],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )
