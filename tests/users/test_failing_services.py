"""Whichever step on one of two servers fails, no account lacks its profile."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import UUID

from django.db import IntegrityError, OperationalError, connections, transaction
from django.test import SimpleTestCase

from sharding import conf
from sharding.errors import DatabaseUnavailable
from tests.sharding.ids import id_on
from tests.support import server_down
from users.models import Activity, Profile, User
from users.services import create_user, delete_user, update_user

EMAIL = "ada@example.com"


def profiles(user_id: UUID) -> list[str]:
    """The shards that hold a profile of this user."""
    return [a for a in conf.shards() if Profile.objects.using(a).filter(pk=user_id).exists()]


class FailingStepTestCase(SimpleTestCase):
    """With real commits; shard_2 is the shard of all users here."""

    # Not TransactionTestCase: to flush five databases after each test takes longer than the tests.
    databases = "__all__"

    def setUp(self) -> None:
        self.addCleanup(self.delete_everything)

    def delete_everything(self) -> None:
        for alias, table in (("shard_2", "activity"), ("shard_2", "profile"), ("default", "user")):
            with connections[alias].cursor() as cursor:
                cursor.execute(f"DELETE FROM users_{table}")

    @contextmanager
    def refusing(self, table: str, *, at_commit: bool = False) -> Iterator[None]:
        """Let the server refuse changes of a table, at once or in the commit."""
        alias = "default" if table == "users_user" else "shard_2"
        when = "INITIALLY DEFERRED" if at_commit else "INITIALLY IMMEDIATE"
        with connections[alias].cursor() as cursor:
            cursor.execute(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
                "$$BEGIN RAISE 'refused' USING ERRCODE = 'serialization_failure'; END$$"
            )
            cursor.execute(
                f"CREATE CONSTRAINT TRIGGER refuse AFTER INSERT OR UPDATE OR DELETE ON {table} "
                f"DEFERRABLE {when} FOR EACH ROW EXECUTE FUNCTION refuse()"
            )
        try:
            yield
        finally:
            with connections[alias].cursor() as cursor:
                cursor.execute("DROP FUNCTION refuse() CASCADE")

    @contextmanager
    def refused(self, table: str, *, at_commit: bool = False) -> Iterator[None]:
        """Assert that the block fails because the server refuses changes of a table."""
        with (
            self.refusing(table, at_commit=at_commit),
            self.assertRaisesMessage(OperationalError, "refused"),
        ):
            yield

    @contextmanager
    def shard_down(self) -> Iterator[None]:
        with server_down("shard_2"), self.assertRaisesMessage(DatabaseUnavailable, "shard_2"):
            yield

    def assertStored(self, user: User, *, account: bool, profile: bool) -> None:
        if account and not profile:
            raise AssertionError("an account without a profile")
        self.assertIs(User.objects.filter(pk=user.pk).exists(), account)
        self.assertEqual(profiles(user.pk), ["shard_2"] if profile else [])


class CreateFailsTests(FailingStepTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.user = User(email=EMAIL, id=id_on("shard_2"))

    def create(self) -> User:
        return create_user(email=EMAIL, id=self.user.pk, profile={"plan": "pro"})

    def assertCreated(self) -> None:
        self.assertStored(self.user, account=True, profile=True)

    def test_shard_down(self) -> None:
        with self.shard_down():
            self.create()
        self.assertStored(self.user, account=False, profile=False)
        self.create()
        self.assertCreated()

    def test_insert_on_the_shard(self) -> None:
        with self.refused("users_profile"):
            self.create()
        self.assertStored(self.user, account=False, profile=False)
        self.create()
        self.assertCreated()

    def test_commit_on_the_shard(self) -> None:
        with self.refused("users_profile", at_commit=True):
            self.create()
        self.assertStored(self.user, account=False, profile=False)

    def test_insert_on_the_primary(self) -> None:
        create_user(email=EMAIL, id=id_on("shard_2"))
        with self.assertRaises(IntegrityError):
            self.user.save()  # past the validation, as of two at once
        self.assertStored(self.user, account=False, profile=False)

    def test_commit_on_the_primary(self) -> None:
        with self.refused("users_user", at_commit=True):
            create_user(email=EMAIL, id=self.user.pk, profile={"bio": "first"})
        self.assertStored(self.user, account=False, profile=True)  # which nobody sees
        self.create()
        self.assertCreated()
        profile = Profile.objects.get(user_id=self.user.pk)
        self.assertEqual((profile.bio, profile.plan), ("", "pro"))

    def test_the_same_object_again(self) -> None:
        for failure in (
            self.shard_down(),
            self.refused("users_profile"),
            self.refused("users_user"),
            self.refused("users_user", at_commit=True),
        ):
            profile = Profile(plan="team")
            with failure:
                self.user.save(profile=profile)
            self.user.save(profile=profile)
            self.assertCreated()
            self.assertEqual(Profile.objects.get(user_id=self.user.pk).plan, "team")
            self.user.name = "Ada"
            self.user.save()
            self.delete_everything()
            self.user = User(email=EMAIL, id=id_on("shard_2"))

    def test_inside_a_transaction_that_fails_later(self) -> None:
        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            self.create()
            raise ZeroDivisionError
        self.assertStored(self.user, account=False, profile=True)


class UpdateFailsTests(FailingStepTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.user = create_user(email=EMAIL, id=id_on("shard_2"))

    def update(self) -> User:
        return update_user(self.user.pk, name="Ada", profile={"plan": "pro"})

    def assertValues(self, name: str, plan: str) -> None:
        self.assertEqual(User.objects.get(pk=self.user.pk).name, name)
        self.assertEqual(Profile.objects.get(user_id=self.user.pk).plan, plan)

    def test_each_step(self) -> None:
        for failure in (
            self.shard_down(),
            self.refused("users_profile"),
            self.refused("users_profile", at_commit=True),
            self.refused("users_user"),
        ):
            with failure:
                self.update()
            self.assertValues("", "free")
        self.update()
        self.assertValues("Ada", "pro")

    def test_commit_on_the_primary(self) -> None:
        with self.refused("users_user", at_commit=True):
            self.update()
        self.assertValues("", "pro")
        self.update()
        self.assertValues("Ada", "pro")


class DeleteFailsTests(FailingStepTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.user = create_user(email=EMAIL, id=id_on("shard_2"))
        Activity(profile_id=self.user.pk, kind="login").save()

    def ways(self) -> list[Callable[[], Any]]:
        return [
            lambda: delete_user(self.user.pk),
            lambda: User.objects.get(pk=self.user.pk).delete(),
            lambda: User.objects.filter(email=EMAIL).delete(),
        ]

    def test_nothing_fails(self) -> None:
        for delete in self.ways():
            self.assertStored(self.user, account=True, profile=True)
            self.assertTrue(delete())
            self.assertStored(self.user, account=False, profile=False)
            self.assertFalse(Activity.objects.using("shard_2").exists())
            self.user = create_user(email=EMAIL, id=id_on("shard_2"))
        self.assertTrue(delete_user(str(self.user.pk)))
        self.assertFalse(delete_user(self.user.pk))

    def test_shard_down_deletes_nothing(self) -> None:
        for delete in self.ways():
            with self.shard_down():
                delete()
            self.assertStored(self.user, account=True, profile=True)

    def test_one_of_several_shards_down_deletes_nobody(self) -> None:
        others = [create_user(email=f"{n}@example.com", id=id_on("shard_2")) for n in range(3)]
        elsewhere = create_user(email="elsewhere@example.com", id=id_on("shard_1"))
        try:
            with self.shard_down():
                User.objects.all().delete()
            self.assertEqual(User.objects.count(), len(others) + 2)
            self.assertEqual(profiles(elsewhere.pk), ["shard_1"])
        finally:
            delete_user(elsewhere.pk)

    def test_on_the_primary(self) -> None:
        for at_commit in (False, True):
            for delete in self.ways():
                with self.refused("users_user", at_commit=at_commit):
                    delete()
                self.assertStored(self.user, account=True, profile=True)

    def test_on_the_shard_and_again(self) -> None:
        for at_commit in (False, True):
            for delete in self.ways():
                with (
                    self.refusing("users_profile", at_commit=at_commit),
                    self.assertLogs("django.db.backends.base", "ERROR"),
                    suppress(OperationalError),
                ):
                    delete()
                self.assertStored(self.user, account=False, profile=True)  # which nobody sees
                self.assertFalse(delete_user(self.user.pk))
                self.assertStored(self.user, account=False, profile=False)
                self.user = create_user(email=EMAIL, id=id_on("shard_2"))

    def test_delete_user_says_that_something_is_left(self) -> None:
        with self.assertLogs("django.db.backends.base"), self.refused("users_profile"):
            delete_user(self.user.pk)

    def test_delete_user_is_no_part_of_a_transaction(self) -> None:
        with self.assertRaises(RuntimeError), transaction.atomic():
            delete_user(self.user.pk)
        self.assertStored(self.user, account=True, profile=True)

    def test_a_transaction_that_fails_later_deletes_nothing(self) -> None:
        for delete in self.ways()[1:]:
            with self.assertRaises(ZeroDivisionError), transaction.atomic():
                delete()
                raise ZeroDivisionError
            self.assertStored(self.user, account=True, profile=True)
