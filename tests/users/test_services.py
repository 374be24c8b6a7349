"""Accounts and profiles on two servers: whichever step fails, no account lacks its profile."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from unittest import mock
from uuid import UUID, uuid4

from django.contrib.auth import authenticate
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import IntegrityError, OperationalError, connections, transaction
from django.test import SimpleTestCase, TestCase

from sharding import conf
from sharding.errors import DatabaseUnavailable, InvalidShardKey
from tests.sharding.ids import id_on
from tests.support import server_down
from users.models import Activity, Profile, User
from users.services import create_user, delete_user, get_user_from_shard, update_user

EMAIL = "ada@example.com"


def profiles(user_id: UUID) -> list[str]:
    """The shards that hold a profile of this user."""
    return [a for a in conf.shards() if Profile.objects.using(a).filter(pk=user_id).exists()]


class CreateTests(TestCase):
    databases = "__all__"

    def test_account_and_profile(self) -> None:
        for alias in conf.shards():
            user_id = id_on(alias)
            user = create_user(
                email=f"{alias}@example.com",
                id=user_id,
                name="Ada",
                is_staff=True,
                profile={"display_name": "Countess", "plan": "pro", "settings": {"a": [1]}},
            )
            with self.subTest(alias):
                self.assertEqual(user, User.objects.get(pk=user_id))
                self.assertEqual((user.name, user.is_staff, user.is_active), ("Ada", True, True))
                self.assertEqual(profiles(user_id), [alias])
                profile = get_user_from_shard(user_id)
                assert profile
                found = (profile.display_name, profile.plan, profile.settings)
                self.assertEqual(found, ("Countess", "pro", {"a": [1]}))

    def test_the_password_is_hashed(self) -> None:
        user = create_user(email=EMAIL, password="correct horse")
        self.assertNotIn("correct horse", user.password)
        self.assertEqual(authenticate(username=EMAIL, password="correct horse"), user)
        self.assertIsNone(authenticate(username=EMAIL, password="wrong"))

    def test_without_a_password_nobody_logs_in(self) -> None:
        user = create_user(email=EMAIL)
        self.assertFalse(user.has_usable_password())

    def test_emails_are_one_whatever_their_case(self) -> None:
        user = create_user(email="Ada@Example.COM", password="secret")
        self.assertEqual(user.email, EMAIL)
        for email in (EMAIL, "ADA@EXAMPLE.COM"):
            with self.subTest(email):
                with self.assertRaisesMessage(ValidationError, "A user with this email already"):
                    create_user(email=email)
                self.assertEqual(User.objects.get(email=email), user)
                self.assertEqual(authenticate(username=email, password="secret"), user)

    def test_what_is_not_valid_stores_nothing(self) -> None:
        for values in (
            {"email": ""},
            {"email": "nobody"},
            {"email": EMAIL, "name": "x" * 151},
            {"email": EMAIL, "profile": {"country": "ch"}},
            {"email": EMAIL, "profile": {"plan": "gold"}},
            {"email": EMAIL, "profile": {"display_name": "x" * 151}},
        ):
            user_id = uuid4()
            with self.subTest(values), self.assertRaises(ValidationError):
                create_user(id=user_id, **values)
            self.assertEqual((User.objects.count(), profiles(user_id)), (0, []))

    def test_names_that_are_no_fields(self) -> None:
        for values in ({"nothing": 1}, {"profile": {"nothing": 1}}):
            with self.subTest(values), self.assertRaises(TypeError):
                create_user(email=EMAIL, **values)
        self.assertFalse(User.objects.exists())

    def test_whoever_makes_an_account_makes_its_profile(self) -> None:
        environment = {"DJANGO_SUPERUSER_PASSWORD": "secret"}
        with mock.patch.dict("os.environ", environment):
            call_command(
                "createsuperuser", email="root@example.com", interactive=False, verbosity=0
            )
        root = User.objects.get(email="root@example.com")
        self.assertTrue(root.is_superuser and root.is_staff and root.check_password("secret"))
        saved = User(email="saved@example.com")
        saved.save()
        for user in (
            root,
            saved,
            User.objects.create(email="created@example.com"),
            User.objects.create_user("made@example.com"),
            User.objects.get_or_create(email="found@example.com")[0],
            User.objects.update_or_create(email="updated@example.com")[0],
        ):
            with self.subTest(user):
                self.assertEqual(len(profiles(user.pk)), 1)

    def test_an_account_needs_an_email(self) -> None:
        with self.assertRaises(ValueError):
            User.objects.create_user("")


class UpdateTests(TestCase):
    databases = "__all__"

    def setUp(self) -> None:
        self.user = create_user(email=EMAIL, id=id_on("shard_2"), password="old")

    def test_account_and_profile(self) -> None:
        before = User.objects.get(pk=self.user.pk)
        user = update_user(str(self.user.pk), name="Ada", profile={"plan": "team"})
        self.assertEqual((user.pk, user.name), (self.user.pk, "Ada"))
        after = User.objects.get(pk=self.user.pk)
        self.assertEqual((after.name, after.email), ("Ada", EMAIL))
        self.assertGreater(after.updated_at, before.updated_at)
        profile = get_user_from_shard(self.user.pk)
        assert profile
        self.assertEqual((profile.plan, profile.display_name), ("team", ""))
        self.assertGreater(profile.updated_at, profile.created_at)

    def test_one_of_them_alone(self) -> None:
        with self.assertNumQueries(0, using="shard_2"):
            update_user(self.user.pk, name="Ada")
        update_user(self.user.pk, profile={"bio": "Countess"})
        self.assertEqual(User.objects.get(pk=self.user.pk).name, "Ada")
        self.assertEqual(Profile.objects.get(user_id=self.user.pk).bio, "Countess")

    def test_the_password_is_hashed(self) -> None:
        update_user(self.user.pk, password="new")
        self.assertIsNone(authenticate(username=EMAIL, password="old"))
        self.assertEqual(authenticate(username=EMAIL, password="new"), self.user)
        self.assertNotIn("new", User.objects.get(pk=self.user.pk).password)

    def test_emails_are_one_whatever_their_case(self) -> None:
        update_user(self.user.pk, email="ADA@example.com")
        other = create_user(email="bob@example.com")
        with self.assertRaises(ValidationError):
            update_user(other.pk, email="Ada@Example.com")
        update_user(other.pk, email="BOB2@example.com")
        self.assertEqual(User.objects.get(pk=other.pk).email, "bob2@example.com")

    def test_what_is_not_valid_changes_nothing(self) -> None:
        for values in (
            {"email": "nobody", "name": "Ada"},
            {"name": "x" * 151, "profile": {"plan": "pro"}},
            {"name": "Ada", "profile": {"plan": "gold"}},
            {"name": "Ada", "profile": {"country": "Switzerland"}},
        ):
            with self.subTest(values), self.assertRaises(ValidationError):
                update_user(self.user.pk, **values)
            user = User.objects.get(pk=self.user.pk)
            self.assertEqual((user.email, user.name), (EMAIL, ""))
            self.assertEqual(Profile.objects.get(user_id=self.user.pk).plan, "free")

    def test_nobody(self) -> None:
        with self.assertRaises(User.DoesNotExist):
            update_user(uuid4(), name="Ada")
        with self.assertRaises(ValidationError):
            update_user("nonsense", name="Ada")


class GetTests(TestCase):
    databases = "__all__"

    def test_the_profile_or_none(self) -> None:
        user = create_user(email=EMAIL, id=id_on("shard_3"), profile={"plan": "pro"})
        for user_id in (user.pk, str(user.pk), user.pk.hex.upper()):
            with self.assertNumQueries(1, using="shard_3"), self.assertNumQueries(0):
                profile = get_user_from_shard(user_id)
            assert profile
            self.assertEqual((profile.pk, profile.plan), (user.pk, "pro"))
        self.assertIsNone(get_user_from_shard(uuid4()))

    def test_no_uuid(self) -> None:
        for nonsense in ("nonsense", "", f"{{{uuid4()}}}"):
            with self.subTest(nonsense), self.assertRaises(InvalidShardKey):
                get_user_from_shard(nonsense)

    def test_shard_down(self) -> None:
        user_id = id_on("shard_3")
        with server_down("shard_3"), self.assertRaisesMessage(DatabaseUnavailable, "shard_3"):
            get_user_from_shard(user_id)


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
