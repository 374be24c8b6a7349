"""The environment's DATABASE_* variables, read into Django's DATABASES.

Pure: reads the mapping it is given, opens nothing. Which rows live in which of these databases is
decided by the router, not here.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

from django.core.exceptions import ImproperlyConfigured
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

__all__ = ["PRIMARY", "any_url", "databases", "processes"]

PRIMARY = "default"

_FIXED = {"DATABASE_PRIMARY_URL": PRIMARY, "DATABASE_ANALYTICS_URL": "analytics"}
_SHARD = re.compile(r"DATABASE_SHARD_([1-9]\d*)_URL", re.ASCII)
_REPLICATION = re.compile(r"DATABASE_SHARD_([1-9]\d*)_REPLICATION_URL", re.ASCII)
_FORM = "postgresql://user:password@host:5432/database?schema=public&sslmode=require"
_SCHEMES = ("postgresql", "postgres")
_NAMED_BY_DJANGO = {"dbname", "user", "password", "host", "port"}
_OURS = ("schema", "pgbouncer")  # Prisma's names
_PLACE = ("host", "hostaddr", "port", "service", "dbname", "options")
_DEFAULT_PORT = "5432"
_DEFAULT_SCHEMA = "public"

# A server that is down must fail its callers within seconds. libpq waits without end by default,
# the pool for 30 s.
_CONNECT_TIMEOUT = 3  # seconds
_POOL_TIMEOUT = 5.0  # seconds
# Nor does TCP notice for a quarter of an hour that the other machine is gone.
_TCP = {
    "tcp_user_timeout": 5000,  # milliseconds
    "keepalives_idle": 30,  # seconds, as the next one
    "keepalives_interval": 5,
    "keepalives_count": 3,
}


def any_url(environ: Mapping[str, str]) -> bool:
    """Say whether the environment names any server of its own."""
    return bool(_url_variables(environ))


def databases(
    environ: Mapping[str, str], *, embedded: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Return DATABASES from `environ`, or from the `embedded` URLs (alias -> URL) if it names none.

    Raises ImproperlyConfigured with the name of the variable that is malformed or missing. No
    message carries a password.
    """
    pool = _pool_options(environ)
    variables = _url_variables(environ)
    if variables:
        _require_all(variables)
        urls = {alias: (variable, environ[variable]) for variable, alias in variables.items()}
    else:
        urls = {alias: (f"the embedded {alias}", url) for alias, url in embedded.items()}
    parsed = {
        alias: _parse(variable, url)
        for alias, (variable, url) in sorted(urls.items(), key=lambda item: _position(item[0]))
    }
    _require_distinct(parsed.values())
    described = {
        alias: _database(address, alias=alias, pool=pool) for alias, address in parsed.items()
    }
    for variable, alias in _replication_variables(environ).items():
        if alias not in described:
            raise ImproperlyConfigured(
                f"{variable} is set, but not {variable.replace('_REPLICATION', '')}."
            )
        # Django does not know this key. It is how the other servers reach this one.
        described[alias]["REPLICATION"] = _parse(variable, environ[variable]).parameters
    return described


def processes(environ: Mapping[str, str]) -> int:
    """Return how many processes connect in all: as given, else gunicorn's and the sync here."""
    workers = _number(environ, "WEB_CONCURRENCY", default=2, at_least=1)
    return _number(environ, "DATABASE_PROCESSES", default=workers + 1, at_least=1)


def _url_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Map each URL variable that is set to its alias."""
    found = {}
    for variable in environ:
        if not environ[variable]:
            continue  # `VARIABLE=` in a compose file means "not set"
        if shard := _SHARD.fullmatch(variable):
            found[variable] = f"shard_{shard[1]}"
        elif variable in _FIXED:
            found[variable] = _FIXED[variable]
        elif variable.startswith("DATABASE_SHARD_") and not _REPLICATION.fullmatch(variable):
            raise ImproperlyConfigured(
                f"{variable} is not a variable that is read. A shard is declared as "
                f"DATABASE_SHARD_<n>_URL with n = 1, 2, 3, …"
            )
    return found


def _replication_variables(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        variable: f"shard_{match[1]}"
        for variable in environ
        if environ[variable] and (match := _REPLICATION.fullmatch(variable))
    }


def _require_all(variables: Mapping[str, str]) -> None:
    missing = [variable for variable in _FIXED if variable not in variables]
    if not any(_SHARD.fullmatch(variable) for variable in variables):
        missing.append("DATABASE_SHARD_1_URL")
    if missing:
        raise ImproperlyConfigured(
            f"{', '.join(sorted(variables))} is set but {', '.join(missing)} is missing. Set them "
            f"all, each as {_FORM}, or none to use the embedded servers."
        )


def _position(alias: str) -> tuple[int, int]:
    """Order aliases as people list them: primary, analytics, shard_1, shard_2, … shard_10."""
    if alias.startswith("shard_"):
        return 2, int(alias.removeprefix("shard_"))
    return (0 if alias == PRIMARY else 1), 0


def _database(address: "_Address", *, alias: str, pool: dict[str, Any]) -> dict[str, Any]:
    schema, parameters = address.schema, address.parameters
    options: dict[str, Any] = {
        "connect_timeout": _CONNECT_TIMEOUT,
        "application_name": "django",
        **_TCP,
        **{key: parameters[key] for key in parameters.keys() - _NAMED_BY_DJANGO},
        "pool": pool,
    }
    if schema:
        search_path = f"-c search_path={_escaped(schema)}"
        options["options"] = f"{options.get('options', '')} {search_path}".strip()
    return {
        "ENGINE": "sharding.backend",
        "NAME": parameters["dbname"],
        "USER": parameters.get("user", ""),
        "PASSWORD": parameters.get("password", ""),
        "HOST": parameters.get("host", ""),
        "PORT": parameters.get("port", ""),
        "OPTIONS": options,
        # A connection that died while it lay in the pool is replaced before it is handed out.
        "CONN_HEALTH_CHECKS": True,
        # PgBouncer would close a cursor at the end of the statement that opens it.
        "DISABLE_SERVER_SIDE_CURSORS": address.pgbouncer,
        # The slot map stands on the primary: its test database is made first.
        "TEST": {"DEPENDENCIES": [] if alias == PRIMARY else [PRIMARY]},
    }


class _Address(NamedTuple):
    variable: str
    schema: str
    pgbouncer: bool
    parameters: dict[str, Any]


def _parse(variable: str, url: str) -> _Address:
    """Split a URL into Prisma's parameters, `schema` and `pgbouncer`, and libpq's own."""
    address, _, query = url.strip().partition("?")
    # Not through parse_qsl and urlencode: these write a space as +, which libpq takes literally.
    given = [part.partition("=") for part in query.split("&") if part]
    ours = {name: unquote(value) for name, _, value in given if name in _OURS}
    rest = "&".join("".join(part) for part in given if part[0] not in _OURS)
    try:
        _require_clear(address, query)
        parameters = conninfo_to_dict(f"{address}?{rest}" if rest else address)
        _require_ports(str(parameters.get("port", "")))
    except (ValueError, ProgrammingError):
        # Not chained: the parsers quote the part they could not read, which may be the password.
        raise ImproperlyConfigured(
            f"{variable} is not a PostgreSQL URL. Write it as {_FORM}; characters like @ / : # % "
            f"in the password must be percent-encoded, and parameters after ? are those of libpq."
        ) from None
    if not parameters.get("dbname"):
        raise ImproperlyConfigured(f"{variable} names no database. Write it as {_FORM}.")
    pgbouncer = _switch(variable, "pgbouncer", ours.get("pgbouncer", "false"))
    if pgbouncer and (ours.get("schema") or parameters.get("options")):
        raise ImproperlyConfigured(
            f"{variable} has pgbouncer=true, and PgBouncer takes neither schema nor options. Give "
            f"them to the role: ALTER ROLE … IN DATABASE … SET search_path = …"
        )
    return _Address(variable, ours.get("schema", ""), pgbouncer, parameters)


def _switch(variable: str, name: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise ImproperlyConfigured(f"{variable}: {name} must be true or false; it is {value!r}.")
    return value == "true"


def _require_clear(address: str, query: str) -> None:
    """Refuse a URL that would be split within an unencoded password.

    libpq ends the password at the first @ and looks for it before the first / only: the rest
    would become a part of the host's or the database's name, which errors print.
    """
    scheme, _, rest = address.partition("://")
    authority, _, path = rest.partition("/")
    if scheme not in _SCHEMES or authority.count("@") > 1 or "@" in path + query:
        raise ValueError("url")


def _require_ports(ports: str) -> None:
    for port in ports.split(",") if ports else ():  # libpq takes several hosts, each with its port
        if port and not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
            raise ValueError("port")


def _escaped(schema: str) -> str:
    """Quote a schema for search_path, and that for libpq's `options`, where spaces separate."""
    quoted = '"' + schema.replace('"', '""') + '"'
    return re.sub(r"([\\\s])", r"\\\1", quoted)


def _pool_options(environ: Mapping[str, str]) -> dict[str, Any]:
    smallest = _number(environ, "DATABASE_POOL_MIN", default=2, at_least=0)
    largest = _number(environ, "DATABASE_POOL_MAX", default=5, at_least=1)
    if smallest > largest:
        raise ImproperlyConfigured(
            f"DATABASE_POOL_MIN ({smallest}) is larger than DATABASE_POOL_MAX ({largest})."
        )
    return {"min_size": smallest, "max_size": largest, "timeout": _POOL_TIMEOUT}


def _number(environ: Mapping[str, str], variable: str, *, default: int, at_least: int) -> int:
    value = environ.get(variable) or str(default)
    if not (value.isascii() and value.isdecimal() and int(value) >= at_least):
        raise ImproperlyConfigured(
            f"{variable} must be a whole number, {at_least} or more; it is {value!r}."
        )
    return int(value)


def _require_distinct(parsed: Iterable[_Address]) -> None:
    """Refuse two variables for one database: its rows would be read twice, its tables made twice.

    One server under two names is not seen.
    """
    seen: dict[tuple[str, ...], str] = {}
    for variable, schema, _, parameters in parsed:
        named = {"port": _DEFAULT_PORT, **parameters}
        place = (*(named.get(key, "") for key in _PLACE), schema or _DEFAULT_SCHEMA)
        if place in seen:
            raise ImproperlyConfigured(
                f"{seen[place]} and {variable} name the same database. Each needs one of its own."
            )
        seen[place] = variable
