"""docs/adopt.md, done as it stands there and with its blocks of code, on a project of startproject.

The project has accounts and orders on one database before; after, the beginning of docs/orm.md
moves the orders to the shards.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psycopg
from django.conf import settings
from django.test import SimpleTestCase

from config.embedded import Cluster

ALIASES = ("default", "shard_1", "shard_2")

BEFORE = """
import uuid

from django.db import models


class Customer(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=50)


class Order(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE)
    total = models.DecimalField(max_digits=9, decimal_places=2)
"""

PLAIN_SETTINGS = """
import os

INSTALLED_APPS += ["orders"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "app",
        "USER": "postgres",
        "HOST": os.environ["DEFAULT_HOST"],
    }
}
"""

FILL = """
for number in range(20):
    customer = Customer.objects.create(name=f"customer {number}")
    for _ in range(number % 3):
        Order.objects.create(customer=customer, total=number)
"""

MOVED = """
from django.db.models import Sum
from sharding import get_shard_for_user_id

everything = Order.objects.across_shards()
assert everything.count() == OldOrder.objects.count() == 19
assert everything.aggregate(x=Sum("total")) == OldOrder.objects.aggregate(x=Sum("total"))
for old in OldOrder.objects.all():
    order = Order.objects.get(pk=old.pk, customer_id=old.customer_id)
    assert order._state.db == get_shard_for_user_id(old.customer_id)
assert {order._state.db for order in everything} == {"shard_1", "shard_2"}
"""


def blocks(document: str, heading: str) -> list[str]:
    """The blocks of Python code in a document that begin with this comment."""
    text = (settings.BASE_DIR / "docs" / document).read_text()
    return re.findall(rf"```python\n(# {re.escape(heading)}.*?)```", text, re.DOTALL)


class AdoptTests(SimpleTestCase):
    databases: set[str] = set()

    def setUp(self) -> None:
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        folder.chmod(0o755)  # as root, the servers run as another user
        self.servers = Cluster(folder / "postgres", ALIASES, durable=False)
        self.addCleanup(self.servers.destroy)
        self.servers.start()
        self.project = folder / "project"
        self.project.mkdir()

    def run_python(self, *arguments: str, answers: str = "") -> None:
        """Run Python in the project, alone in its environment; warnings are errors."""
        hosts = {f"{alias.upper()}_HOST": str(self.servers.sockets / alias) for alias in ALIASES}
        done = subprocess.run(
            [sys.executable, "-W", "error", *arguments],
            cwd=self.project,
            env={"PATH": os.defpath, **hosts},
            input=answers,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def manage(self, *commands: Sequence[str], answers: str = "") -> None:
        """Run commands of manage.py, one after the other. In one process, to save seconds."""
        given = [["manage.py", *command] for command in commands]
        code = f"import manage, sys\nfor sys.argv in {given!r}: manage.main()"
        self.run_python("-c", code, answers=answers)

    def add(self, file: str, *code: str) -> None:
        with (self.project / file).open("a") as stream:
            stream.write("\n\n".join(("", *code)))

    def places(self, table: str) -> set[str]:
        """The databases that have a table."""
        found = set()
        for alias in ALIASES:
            with psycopg.connect(self.servers.url(alias)) as connection:
                if connection.execute("SELECT to_regclass(%s)", [table]).fetchone() != (None,):
                    found.add(alias)
        return found

    def test_a_project_of_startproject(self) -> None:
        self.make_the_project_as_it_was()
        self.adopt()
        self.move_the_orders()

    def make_the_project_as_it_was(self) -> None:
        self.run_python("-m", "django", "startproject", "shop", ".")
        (self.project / "orders" / "migrations").mkdir(parents=True)
        (self.project / "orders" / "migrations" / "__init__.py").touch()
        self.add("orders/models.py", BEFORE)
        self.add("shop/settings.py", PLAIN_SETTINGS)
        self.manage(["makemigrations", "orders"], ["migrate"], ["shell", "-c", FILL])

    def adopt(self) -> None:
        without = shutil.ignore_patterns("__pycache__")
        shutil.copytree(settings.BASE_DIR / "sharding", self.project / "sharding", ignore=without)
        self.add("shop/settings.py", *blocks("adopt.md", "shop/settings.py"))
        as_before = "assert Order.objects.count() == 19"
        self.manage(["check"], ["migrate"], ["shell", "-c", as_before])
        self.assertEqual(self.places("sharding_slot"), {"default"})
        self.assertEqual(self.places("django_migrations"), set(ALIASES))
        self.assertEqual(self.places("auth_user"), {"default"})

        self.add("orders/models.py", *blocks("adopt.md", "orders/models.py"))
        (first_rows,) = blocks("adopt.md", "python manage.py shell")
        self.manage(["makemigrations", "orders"], ["migrate"], ["shell", "-c", first_rows])
        self.assertEqual(self.places("orders_visit"), {"shard_1", "shard_2"})

    def move_the_orders(self) -> None:
        models = self.project / "orders" / "models.py"
        models.write_text(models.read_text().replace("class Order(", "class OldOrder("))
        self.manage(["makemigrations", "orders"], answers="y\n")

        self.add("orders/models.py", *blocks("orm.md", "orders/models.py"))
        (copy,) = blocks("orm.md", "python manage.py shell")
        again = ["shell", "-c", copy]
        self.manage(["makemigrations", "orders"], ["check"], ["migrate"], again, again)
        self.assertEqual(self.places("orders_oldorder"), {"default"})
        self.assertEqual(self.places("orders_order"), {"shard_1", "shard_2"})
        self.manage(["shell", "-c", MOVED], ["makemigrations", "--check", "--dry-run"])
