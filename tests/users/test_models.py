"""The models of users: the fields that others rely on, and what the databases themselves hold."""

from datetime import timedelta
from decimal import Decimal
from uuid import UUID, uuid4

from django.contrib.auth import authenticate
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, connections, models, transaction
from django.test import SimpleTestCase, TestCase
from django.utils import timezone

from sharding.models import ShardedModel
from tests.sharding.ids import id_on
from users.models import Activity, Profile, User

ADA = "ada@example.com"


def described(model: type[models.Model]) -> dict[str, str]:
    """Field -> type and, where it is not the same, column, of all concrete fields."""
    return {
        field.name: field.get_internal_type()
        + ("" if field.column == field.name else f" in {field.column}")
        for field in model._meta.concrete_fields
    }


class FieldsTests(SimpleTestCase):
    maxDiff = None

    def test_user(self) -> None:
        self.assertEqual(
            described(User),
            {
                "password": "CharField",
                "last_login": "DateTimeField",
                "is_superuser": "BooleanField",
                "id": "UUIDField",
                "email": "CharField",
                "name": "CharField",
                "is_active": "BooleanField",
                "is_staff": "BooleanField",
                "date_joined": "DateTimeField",
                "updated_at": "DateTimeField",
            },
        )
        self.assertEqual([f.name for f in User._meta.many_to_many], ["groups", "user_permissions"])
        self.assertEqual(
            (User.USERNAME_FIELD, User.EMAIL_FIELD, User.REQUIRED_FIELDS), ("email", "email", [])
        )

    def test_profile(self) -> None:
        self.assertEqual(
            described(Profile),
            {
                "user_id": "UUIDField",
                "display_name": "CharField",
                "country": "CharField",
                "plan": "CharField",
                "bio": "TextField",
                "settings": "JSONField",
                "created_at": "DateTimeField",
                "updated_at": "DateTimeField",
            },
        )
        self.assertTrue(issubclass(Profile, ShardedModel))
        self.assertEqual((Profile.shard_key, Profile._meta.pk.name), ("user_id", "user_id"))
        self.assertEqual([*Profile.Plan], ["free", "pro", "team"])

    def test_activity(self) -> None:
        self.assertEqual(
            described(Activity),
            {
                "id": "UUIDField",
                "profile": "ForeignKey in user_id",
                "kind": "CharField",
                "amount": "DecimalField",
                "payload": "JSONField",
                "occurred_at": "DateTimeField",
            },
        )
        self.assertTrue(issubclass(Activity, ShardedModel))
        self.assertEqual(Activity.shard_key, "profile")
        field = Activity._meta.get_field("profile")
        self.assertIs(field.remote_field.model, Profile)
        self.assertEqual(field.remote_field.get_accessor_name(), "activities")

    def test_ids_are_random_in_their_first_bits(self) -> None:
        # As those of UUID4 are; the first of UUID7 are the clock.
        for model in (User, Activity):
            ids = [model().pk for _ in range(50)]
            self.assertEqual({new.version for new in ids}, {4})
            self.assertGreater(len({new.int >> 124 for new in ids}), 5)

    def test_defaults(self) -> None:
        user, profile, activity = User(), Profile(), Activity()
        self.assertEqual((user.is_active, user.is_staff, user.is_superuser), (True, False, False))
        self.assertEqual((profile.plan, profile.country, profile.settings), ("free", "", {}))
        self.assertEqual((activity.amount, activity.payload), (Decimal(0), {}))
        for moment in (user.date_joined, profile.created_at, activity.occurred_at):
            self.assertLess(timezone.now() - moment, timedelta(minutes=1))
        self.assertIsNot(Profile().settings, profile.settings)

    def test_names_for_people(self) -> None:
        user = User(email=ADA)
        self.assertEqual((str(user), user.get_full_name()), (ADA, ADA))
        user.name = "Ada"
        self.assertEqual((str(user), user.get_full_name()), (ADA, "Ada"))
        user_id = uuid4()
        self.assertEqual(str(Profile(user_id=user_id)), str(user_id))
        self.assertEqual(str(Profile(user_id=user_id, display_name="Countess")), "Countess")
        self.assertIn("login at 20", str(Activity(kind="login")))


class EmailTests(TestCase):
    databases = "__all__"

    def test_is_lower_case_wherever_it_comes_from(self) -> None:
        made = User.objects.create_user("ADA@Example.com", "secret")
        self.assertEqual(made.email, ADA)
        saved = User(email="Bob@Example.com")
        saved.save()
        self.assertEqual(saved.email, "bob@example.com")
        User.objects.filter(pk=saved.pk).update(email="BOB2@example.com")
        saved.refresh_from_db()
        self.assertEqual(saved.email, "bob2@example.com")

    def test_is_found_in_any_case(self) -> None:
        user = User.objects.create_user(ADA, "secret")
        for lookup in ("email", "email__exact", "email__iexact", "email__istartswith"):
            self.assertEqual(User.objects.get(**{lookup: "ADA@example.COM"}), user, lookup)
        self.assertEqual(User.objects.get(email__in=["ADA@example.COM"]), user)
        self.assertEqual(User.objects.get_by_natural_key("Ada@Example.com"), user)
        self.assertEqual(authenticate(email="ADA@example.com", password="secret"), user)
        self.assertTrue(self.client.login(email="aDa@example.com", password="secret"))

    def test_is_there_once(self) -> None:
        User.objects.create_user(ADA)
        with self.assertRaises(IntegrityError), transaction.atomic():
            User.objects.create_user("ADA@EXAMPLE.COM")
        with self.assertRaisesMessage(ValidationError, "A user with this email already exists."):
            User(email="Ada@example.com", password="x").full_clean()

    def test_past_the_models_the_database_refuses_capitals(self) -> None:
        user = User.objects.create_user(ADA)
        with (
            self.assertRaisesMessage(IntegrityError, "users_user_email_lowercase"),
            transaction.atomic(),
            connection.cursor() as cursor,
        ):
            cursor.execute("UPDATE users_user SET email = 'Ada@x.org' WHERE id = %s", [user.pk])


class ProfileTests(TestCase):
    databases = "__all__"

    def test_countries(self) -> None:
        for country, valid in {"": True, "CH": True, "ch": False, "C": False, "C1": False}.items():
            profile = Profile(user_id=uuid4(), country=country)
            with self.subTest(country):
                if valid:
                    profile.full_clean()
                else:
                    with self.assertRaises(ValidationError) as caught:
                        profile.full_clean()
                    self.assertEqual([*caught.exception.error_dict], ["country"])
        for country in ("CH\n", "ÀÉ", "CHE"):
            with self.subTest(country), self.assertRaises(ValidationError):
                Profile(user_id=uuid4(), country=country).full_clean()

    def test_plans(self) -> None:
        with self.assertRaises(ValidationError):
            Profile(user_id=uuid4(), plan="gold").full_clean()


class ActivityTests(TestCase):
    databases = "__all__"
    user_id: UUID

    def setUp(self) -> None:
        self.user_id = id_on("shard_1")
        Profile(user_id=self.user_id).save()

    def test_amounts_keep_their_digits(self) -> None:
        activity = Activity(
            profile_id=self.user_id, kind="payment", amount=Decimal("9999999999.99")
        )
        activity.full_clean()
        activity.save()
        activity.refresh_from_db()
        self.assertEqual(str(activity.amount), "9999999999.99")
        with self.assertRaises(ValidationError):
            Activity(profile_id=self.user_id, kind="payment", amount=Decimal("0.001")).full_clean()

    def test_needs_its_profile_in_the_database_too(self) -> None:
        with self.assertRaises(IntegrityError), transaction.atomic(using="shard_1"):
            Activity(profile_id=id_on("shard_1"), kind="login").save()
            connections["shard_1"].check_constraints()

    def test_goes_with_its_profile(self) -> None:
        Activity(profile_id=self.user_id, kind="login").save()
        Profile.objects.using("shard_1").get(pk=self.user_id).delete()
        self.assertFalse(Activity.objects.using("shard_1").filter(profile=self.user_id).exists())

    def test_indexes_begin_with_the_key(self) -> None:
        for alias in ("shard_1", "shard_3"):
            with connections[alias].cursor() as cursor:
                constraints = connections[alias].introspection.get_constraints(
                    cursor, "users_activity"
                )
            found = {tuple(c["columns"]): c["unique"] for c in constraints.values() if c["index"]}
            self.assertIs(found[("user_id", "occurred_at")], False)
            unique = [tuple(c["columns"]) for c in constraints.values() if c["unique"]]
            self.assertIn(("user_id", "id"), unique)
