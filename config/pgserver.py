"""One embedded PostgreSQL server: its files, settings, start and end.

Who may call this at the same time, where the files live and the command line are in
``config.embedded``; the programs in ``config.pgbinaries``.
"""

import contextlib
import errno
import os
import shlex
import shutil
import signal
import socket
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import errors

from config import pgbinaries
from config.pgbinaries import Account, EmbeddedError

__all__ = ["PORT", "Server", "delete", "label", "url"]

DATABASE = "app"
PORT = 5432  # Only a part of the socket's name: nothing listens on a network.
TIMEOUT = 60  # Seconds to start, which may include recovery, or to end.

_INITDB = (
    "--username=postgres",
    "--auth=trust",
    "--encoding=UTF8",
    # Sorts the same on every system and never changes with an update of the C library.
    "--locale-provider=builtin",
    "--locale=C.UTF-8",
    "--no-instructions",
)
_SETTINGS: dict[str, str | int] = {
    "listen_addresses": "",
    "port": PORT,
    "unix_socket_permissions": "0700",
    "max_connections": 200,
    "wal_level": "logical",
    "max_wal_senders": 20,
    "max_replication_slots": 20,
    "max_active_replication_origins": 20,
    "max_logical_replication_workers": 20,
    "max_worker_processes": 32,
    "max_prepared_transactions": 20,
    # A forgotten replication slot must not fill the disk.
    "max_slot_wal_keep_size": "4GB",
    # A statement whose client was killed ends with it.
    "client_connection_check_interval": "5s",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_destination": "stderr",
    "logging_collector": "off",
}
# Still starting, or still creating the database for a start that was killed.
_NOT_YET = (psycopg.OperationalError, errors.DuplicateDatabase, errors.UniqueViolation)
_NOT_DURABLE: dict[str, str | int] = {
    "fsync": "off",
    "full_page_writes": "off",
    "wal_retrieve_retry_interval": "100ms",  # tests kill servers, and wait for who followed them
}


def label(alias: str) -> str:
    """What people call the alias: "primary" for "default"."""
    return "primary" if alias == "default" else alias


def url(socket_folder: Path, database: str = DATABASE) -> str:
    """The address of a database, in the form that libpq, psycopg and psql read."""
    host = quote(str(socket_folder), safe="")
    return f"postgresql://postgres@/{database}?host={host}&port={PORT}"


class Server:
    """The server of one alias: a data folder, a log and a settings file in ``home``.

    Its data folder and log belong to the user it runs as, who is another one when we are root;
    ``home`` belongs to us, so that nobody can put a link where root writes.
    """

    def __init__(self, alias: str, home: Path, sockets: Path, *, durable: bool) -> None:
        self.alias = alias
        self.home = home
        self.data = home / alias
        self.log = home / f"{alias}.log"
        self.settings_file = home / f"{alias}.conf"
        self.pid_file = self.data / "postmaster.pid"
        self.socket_folder = sockets / alias
        self.durable = durable

    def __str__(self) -> str:
        return f"the {label(self.alias)} server"

    @property
    def pid(self) -> int | None:
        """The server's main process, None when it does not run."""
        pid = self._noted_pid()
        served = pid and pgbinaries.served_folder(pid)
        return pid if served and served.resolve() == self.data.resolve() else None

    def start(self, programs: Path) -> bool:
        """Make it run, accept connections and have its database; False if it already ran."""
        self._make_socket_folder()
        # It may run and yet not listen: somebody cleaned the temporary folder.
        needed = not (self.pid and self._listens())
        if needed:
            self.end(signal.SIGINT)
            self._initialise(programs)
            self._write_settings()
            self._clear_stale_locks()
            self._launch(programs)
        self._create_database()
        return needed

    def end(self, number: signal.Signals) -> bool:
        """Send the signal and wait for the end; False if it did not run."""
        pid = self.pid
        if pid is None:
            return False
        os.kill(pid, number)
        os.kill(pid, signal.SIGCONT)  # A paused process ends only when it goes on.
        self._wait_until_gone([pid])
        return True

    def kill(self) -> None:
        """Crash it, and wait until none of its processes is left."""
        pid = self.pid
        if pid is None:
            raise EmbeddedError(f"Cannot kill {self}, it does not run: start it first.")
        # Paused first, so that it cannot start another child while we look.
        os.kill(pid, signal.SIGSTOP)
        processes = [pid, *pgbinaries.children(pid)]
        os.kill(pid, signal.SIGKILL)
        self._wait_until_gone(processes)

    def delete(self) -> None:
        """End it and delete all its files."""
        self.end(signal.SIGQUIT)
        if self.pid_file.exists():
            with contextlib.suppress(EmbeddedError):
                self._release_memory()
        self._delete_half_made()
        delete(self.data, self.log, self.settings_file)

    def _release_memory(self) -> None:
        """Remove the shared memory of a crashed server, a megabyte that outlives its files.

        Only a server that takes the data over can do that; this one ends when it has recovered.
        """
        programs = pgbinaries.install(self.home)
        self._clear_stale_locks()
        options = ["-D", str(self.data), "-c", f"config_file={self.settings_file}", "postgres"]
        pgbinaries.run(programs / "postgres", "--single", *options, folder=self.home)

    def _noted_pid(self) -> int | None:
        try:
            return int(self.pid_file.read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return None

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            answer = client.connect_ex(f"{self.socket_folder}/.s.PGSQL.{PORT}")
        # Any other error is that of a server which is there, only busy.
        return answer not in (errno.ENOENT, errno.ECONNREFUSED)

    def _initialise(self, programs: Path) -> None:
        account = pgbinaries.server_account()
        if self.data.exists():
            _check_data(self.data, account)
            return
        # Renamed when complete: an initdb that was interrupted leaves no half-made server.
        self._delete_half_made()
        fresh = self.home / f"{self.alias}.new-{os.getpid()}"
        fresh.mkdir(mode=0o700)
        pgbinaries.give(fresh, account, 0o700)
        options = [*_INITDB, f"--pgdata={fresh}", *([] if self.durable else ["--no-sync"])]
        done = pgbinaries.run(programs / "initdb", *options, folder=self.home)
        if done.returncode != 0:
            delete(fresh)
            raise EmbeddedError(f"Cannot initialise {self}:\n{done.stdout.strip()}")
        fresh.rename(self.data)

    def _delete_half_made(self) -> None:
        for folder in self.home.glob(f"{self.alias}.new-*"):
            # Its initdb may still run or clean up itself, when only we were killed.
            shutil.rmtree(folder, ignore_errors=True)

    def _write_settings(self) -> None:
        """Write the settings anew for each start, so that changes above are picked up.

        ALTER SYSTEM, which writes to the data folder, has the last word.
        """
        settings = _SETTINGS | {
            "cluster_name": self.alias,
            "unix_socket_directories": f'"{self.socket_folder}"',
            **({} if self.durable else _NOT_DURABLE),
        }
        lines = [f"include '{self.alias}/postgresql.conf'"]
        lines += [f"{name} = '{value}'" for name, value in settings.items()]
        self.settings_file.write_text("\n".join(lines) + "\n")
        self.settings_file.chmod(0o644)

    def _make_socket_folder(self) -> None:
        # The names are predictable, and others may write to the temporary folder as well.
        ours = Account(os.geteuid(), os.getegid())
        _private_folder(self.socket_folder.parent, ours, 0o711 if ours.uid == 0 else 0o700)
        _private_folder(self.socket_folder, pgbinaries.server_account(), 0o700)

    def _clear_stale_locks(self) -> None:
        """Remove lock files that name a process which by now is another one.

        PostgreSQL ignores the lock of a process that is gone, but not when the number was given
        to another one (usual when a container restarts) or when the dead one remains as a zombie.
        """
        if self.pid:  # Just now started, on behalf of a start that was killed.
            return
        pid = self._noted_pid()
        served = pid and pgbinaries.served_folder(pid)
        if served and not served.exists():
            raise EmbeddedError(
                f"Process {pid} is the server of {served}, which was moved, perhaps to "
                f"{self.data}: stop it first (kill -INT {pid})."
            )
        if pid and _exists(pid):
            self.pid_file.unlink()
        delete(*self.socket_folder.glob(".s.PGSQL.*"))

    def _launch(self, programs: Path) -> None:
        self.log.touch(mode=0o600)
        pgbinaries.give(self.log, pgbinaries.server_account(), 0o600)
        size = self.log.stat().st_size
        settings = f"-c config_file={shlex.quote(str(self.settings_file))}"
        options = ["-D", str(self.data), "-l", str(self.log), "-o", settings, "-t", str(TIMEOUT)]
        done = pgbinaries.run(programs / "pg_ctl", "start", "-w", *options, folder=self.home)
        if done.returncode != 0 and not self.pid:
            raise EmbeddedError(
                f"Cannot start {self}. The end of its log, {self.log}:\n"
                + (_tail(self.log, size) or done.stdout.strip())
            )

    def _create_database(self) -> None:
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                self._create_database_if_missing()
                return
            except _NOT_YET as error:
                if time.monotonic() > deadline or not self.pid:
                    raise EmbeddedError(
                        f"Cannot connect to {self}: {error}. Its log is {self.log}."
                    ) from error
                time.sleep(0.1)

    def _create_database_if_missing(self) -> None:
        address = url(self.socket_folder, "postgres")
        with psycopg.connect(address, autocommit=True, connect_timeout=5) as connection:
            query = "SELECT FROM pg_database WHERE datname = %s"
            if connection.execute(query, [DATABASE]).rowcount == 0:
                connection.execute(f"CREATE DATABASE {DATABASE}")

    def _wait_until_gone(self, pids: Sequence[int]) -> None:
        deadline = time.monotonic() + TIMEOUT
        # Not _exists: where process 1 does not collect them, ended processes stay as zombies.
        while any(pgbinaries.command(pid) for pid in pids):
            if time.monotonic() > deadline:
                raise EmbeddedError(f"Signalled {self}, which did not end in {TIMEOUT} seconds.")
            time.sleep(0.02)


def delete(*paths: Path) -> None:
    """Delete files and whole folders, those that exist; a link, not what it leads to."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _check_data(data: Path, account: Account) -> None:
    owner = data.stat().st_uid
    if owner != account.uid:
        raise EmbeddedError(
            f"{data} belongs to user {owner}, but the server would run as user {account.uid}: "
            "start it as whoever made it, or move that folder away."
        )
    try:
        version = (data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        raise EmbeddedError(f"{data} exists but holds no server: move it away.") from None
    if version != str(pgbinaries.MAJOR):
        raise EmbeddedError(
            f"{data} was made by PostgreSQL {version}, but {pgbinaries.MAJOR} is installed: take "
            f"the data out with the pg_dump of PostgreSQL {version}, then move that folder away."
        )


def _private_folder(path: Path, owner: Account, mode: int) -> None:
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in (owner.uid, os.geteuid()):
        raise EmbeddedError(
            f"{path} should be a private folder for sockets, but it is a link, a file or another "
            "user's folder: remove it."
        )
    pgbinaries.give(path, owner, mode)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _tail(log: Path, start: int, lines: int = 15) -> str:
    with log.open("rb") as file:
        file.seek(start)
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
