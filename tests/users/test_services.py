"""Accounts and profiles, on two servers."""

from unittest import mock
from uuid import UUID, uuid4

from django.contrib.auth import authenticate
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.test import TestCase

from sharding import conf
from sharding.errors import DatabaseUnavailable, InvalidShardKey
from tests.sharding.ids import id_on
from tests.support import server_down
from users.models import Profile, User
from users.services import create_user, get_user_from_shard, update_user

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
