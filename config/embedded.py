"""Real PostgreSQL servers for development and tests, one process per database alias.

    python -m config.embedded start | stop | status | destroy

Importing this module starts nothing, and ``Cluster.url`` touches nothing: settings may call it.
Each alias is a server of its own, so that stopping one is a real outage. The servers listen only
on Unix sockets in folders that are private to the user; that is why they need no password.
What one server does is in ``config.pgserver``.
"""

import argparse
import contextlib
import hashlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from config import pgbinaries, pgserver
from config.pgbinaries import EmbeddedError
from config.pgserver import Server, label

__all__ = ["ALIASES", "Cluster", "EmbeddedError", "Status", "default_cluster", "main"]

ALIASES = ("default", "analytics", "shard_1", "shard_2", "shard_3")

_HOME_FOR_ROOT = "/var/lib/django-many-databases-"
_TMP = Path("/tmp")  # noqa: S108, its folders are made private and checked
_LONGEST_SOCKET_PATH = 100
_STOP_SIGNALS = {"smart": "SIGTERM", "fast": "SIGINT", "immediate": "SIGQUIT"}


class Status(NamedTuple):
    """One server: its alias, whether it runs, its process (or None) and its data folder."""

    alias: str
    running: bool
    pid: int | None
    data: Path


class Cluster:
    """The servers of one folder, one per alias; a method given no aliases means all of them.

    ``durable=False`` trades safety against a crash of the machine for speed: for tests.
    What goes wrong is an ``EmbeddedError``.
    """

    def __init__(
        self, folder: Path, aliases: Sequence[str] = ALIASES, *, durable: bool = True
    ) -> None:
        folder = Path(os.path.abspath(folder))
        # Not folder.resolve(): as root the folder can become a link (see `home`), and the names
        # that are derived from it must stay the same.
        self.folder = folder.parent.resolve() / folder.name
        self.aliases = tuple(aliases)
        self.durable = durable

    def url(self, alias: str) -> str:
        """The address of the alias's database, ``postgresql://...``; touches nothing."""
        (alias,) = self._chosen([alias])
        return pgserver.url(self.sockets / alias)

    def start(self, *aliases: str) -> tuple[str, ...]:
        """Make the servers run, initialise those that are new; return those really started.

        Each accepts connections and has its database then. Starting again changes nothing.
        """
        with self._exclusive():
            programs = pgbinaries.install(self.home)
            servers = self._servers(aliases)
            with ThreadPoolExecutor(max_workers=len(servers)) as pool:
                started = list(pool.map(lambda server: server.start(programs), servers))
        return tuple(server.alias for server, new in zip(servers, started, strict=True) if new)

    def stop(self, *aliases: str, mode: str = "fast") -> tuple[str, ...]:
        """Stop the servers; return those that ran.

        The mode is PostgreSQL's: "smart" waits until all clients have gone, "fast" disconnects
        them, "immediate" leaves recovery to the next start.
        """
        servers = self._servers(aliases)
        if not self.home.exists():
            return ()
        number = signal.Signals[_STOP_SIGNALS[mode]]
        with self._exclusive(), ThreadPoolExecutor(max_workers=len(servers)) as pool:
            ended = list(pool.map(lambda server: server.end(number), servers))
        return tuple(server.alias for server, ran in zip(servers, ended, strict=True) if ran)

    def kill(self, alias: str) -> None:
        """Crash the server, and wait until none of its processes is left."""
        (server,) = self._servers([alias])
        server.kill()

    def running(self, alias: str) -> bool:
        """Whether the alias's server process exists."""
        (status,) = self.status(alias)
        return status.running

    def status(self, *aliases: str) -> list[Status]:
        """What runs; changes nothing."""
        found = [(server, server.pid) for server in self._servers(aliases)]
        return [Status(server.alias, bool(pid), pid, server.data) for server, pid in found]

    def destroy(self) -> None:
        """Stop the servers and delete everything that the cluster made, the data included."""
        home = self.home
        if home.exists():
            with self._exclusive() as lock:
                for server in self._servers():
                    server.delete()
                pgserver.delete(*home.glob("programs-*"), lock)
            # Something that is not ours may be in it, or a start may have come in between.
            with contextlib.suppress(OSError):
                home.rmdir()
        if self.folder.is_symlink() and self.folder.readlink() == self._home_for_root:
            self.folder.unlink()
        if self.sockets.is_dir() and self.sockets.lstat().st_uid == os.geteuid():
            pgserver.delete(self.sockets)

    @property
    def home(self) -> Path:
        """Where the servers really live.

        That is the folder, unless we are root and ``nobody``, as whom they run, cannot get there
        (a clone in /root): then it is a folder in /var/lib, and a link at our folder leads to it.
        Opening the parents of the folder instead would show root's files to all users.
        """
        folder = self.folder.resolve()
        if str(folder).startswith(_HOME_FOR_ROOT) and folder != self._home_for_root:
            raise EmbeddedError(
                f"The link {self.folder} came from another place and leads to the servers of that "
                f"place: remove it, or rename {folder} to {self._home_for_root} and link that."
            )
        if folder.exists() and not os.access(folder, os.W_OK):
            raise EmbeddedError(
                f"The servers in {folder} belong to user {folder.stat().st_uid}: go on as that "
                "user, or move the folder away."
            )
        if os.geteuid() != 0 or pgbinaries.can_enter(pgbinaries.server_account(), folder):
            return folder
        return self._home_for_root

    @property
    def sockets(self) -> Path:
        """The folder of the folders of the sockets, one per alias."""
        # A socket's path has about 100 characters at most, however deep the clone lies. As root
        # always /tmp: TMPDIR may be private to root, and the server's user could not get there.
        uid = os.geteuid() if hasattr(os, "geteuid") else 0
        name = f"pg-{_short_hash(f'{uid}:{self.folder}')}"
        # Not tempfile.gettempdir(), which writes a file to try the folder: settings call this.
        parent = _TMP if uid == 0 else Path(os.path.abspath(os.environ.get("TMPDIR") or _TMP))
        length = max(len(f"{parent / name / alias}/.s.PGSQL.0000") for alias in self.aliases)
        return (parent if length <= _LONGEST_SOCKET_PATH else _TMP) / name

    @property
    def _home_for_root(self) -> Path:
        return Path(_HOME_FOR_ROOT + _short_hash(str(self.folder)))

    def _servers(self, aliases: Sequence[str] = ()) -> list[Server]:
        home, sockets, durable = self.home, self.sockets, self.durable
        return [Server(a, home, sockets, durable=durable) for a in self._chosen(aliases)]

    def _chosen(self, aliases: Sequence[str]) -> tuple[str, ...]:
        unknown = sorted(set(aliases) - set(self.aliases))
        if unknown:
            raise EmbeddedError(
                f"There is no embedded server {', '.join(unknown)}, only "
                f"{', '.join(map(label, self.aliases))}."
            )
        return tuple(dict.fromkeys(aliases)) or self.aliases

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[Path]:
        """Hold the lock of the servers, so that no two processes start or stop them at once."""
        import fcntl  # Not on Windows, where importing this module must still work.

        path = self.home / "lock"
        try:
            while True:
                self._make_home()
                with path.open("w") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    # A `destroy` that we waited for may have deleted the file that we now hold.
                    if _is_file(path, lock.fileno()):
                        yield path
                        return
        except OSError as error:
            raise EmbeddedError(f"Cannot manage the servers in {self.folder}: {error}") from error

    def _make_home(self) -> None:
        home = self.home
        if home != self.folder and not self.folder.is_symlink():
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self._link_to(home)
        # As root with explicit modes: the server's user must get there whatever our umask is.
        for path in reversed([path for path in (home, *home.parents) if not path.exists()]):
            path.mkdir(exist_ok=True)
            if os.geteuid() == 0:
                path.chmod(0o755)
            elif path == home:
                path.chmod(0o700)

    def _link_to(self, home: Path) -> None:
        try:
            if self.folder.exists():
                self.folder.rmdir()
            self.folder.symlink_to(home)
        except FileExistsError:  # Another start was faster.
            pass
        except OSError as error:
            raise EmbeddedError(
                f"As root the servers live in {home}, and {self.folder} must be a link to it, but "
                "that folder exists: go on as the user who made it, or move it away."
            ) from error


def default_cluster() -> Cluster:
    """The project's own servers, in var/postgres."""
    return Cluster(Path(__file__).resolve().parent.parent / "var" / "postgres")


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _is_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _start(cluster: Cluster, aliases: Sequence[str]) -> int:
    started = cluster.start(*aliases)
    _print(cluster, aliases, lambda alias: "started" if alias in started else "already running")
    return 0


def _stop(cluster: Cluster, aliases: Sequence[str]) -> int:
    stopped = cluster.stop(*aliases)
    _print(cluster, aliases, lambda alias: "stopped" if alias in stopped else "not running")
    return 0


def _status(cluster: Cluster, aliases: Sequence[str]) -> int:
    pids = {status.alias: status.pid for status in cluster.status(*aliases)}
    texts = {alias: f"running, process {pid}" if pid else "stopped" for alias, pid in pids.items()}
    _print(cluster, aliases, texts.__getitem__)
    return 0 if all(pids.values()) else 3


def _destroy(cluster: Cluster, aliases: Sequence[str]) -> int:
    cluster.destroy()
    print(f"Deleted the servers of {cluster.folder} with all their data.")
    return 0


def _print(cluster: Cluster, aliases: Sequence[str], text: Callable[[str], str]) -> None:
    for alias in aliases or cluster.aliases:
        print(f"{label(alias):<11}{text(alias)}")


_COMMANDS = {
    "start": (_start, "Start the servers that do not run, and initialise new ones."),
    "stop": (_stop, "Stop the servers; their data stay."),
    "status": (_status, "Show what runs; the exit code is 3 when one does not."),
    "destroy": (_destroy, "Stop the servers and delete them with all their data."),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    chosen = _parser().parse_args(arguments)
    cluster = Cluster(chosen.folder) if chosen.folder else default_cluster()
    try:
        return _COMMANDS[chosen.command][0](cluster, getattr(chosen, "databases", ()))
    except EmbeddedError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted: not all servers may have started or stopped.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m config.embedded",
        description="Real PostgreSQL servers for development, one per database.",
    )
    parser.add_argument("--folder", type=Path, help="where they live (default: var/postgres)")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (_, text) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if name != "destroy":
            command.add_argument(
                "databases",
                nargs="*",
                type=lambda given: "default" if given == "primary" else given,
                help="primary, analytics, shard_1, ... (default: all)",
            )
    return parser


if __name__ == "__main__":
    sys.exit(main())
