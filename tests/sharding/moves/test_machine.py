"""Moves, writes, old maps and crashes in any order, against a model: what must always hold."""

from typing import Any, ClassVar
from uuid import UUID

from django.db import DatabaseError, connections, transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sharding import slot_cache
from sharding.errors import MoveFailed, MoveRefused, SlotMoved
from sharding.models import Move
from sharding.moves import record, run
from tests.sharding.moves.soak import SOAK, rounds
from tests.sharding.moves.support import SLOTS, MovesTestCase, owners_of, quiet, user_id
from users.models import Activity, Profile

KEYS = [user_id(slot, n) for slot in (SLOTS[0], SLOTS[1], 9, 400) for n in range(2)]
RAW = (
    "INSERT INTO users_profile (user_id, bio, display_name, country, plan, settings, created_at,"
    " updated_at) VALUES (%s, %s, '', '', 'free', '{}', now(), now())"
    " ON CONFLICT (user_id) DO UPDATE SET bio = excluded.bio"
)
keys = st.sampled_from(KEYS)


class MovesMachine(RuleBasedStateMachine):
    """One process; movers are records of a move, some of them out of date."""

    test: ClassVar[MovesTestCase]

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[UUID, str] = {}
        self.number = 0
        self.mover: Move | None = None
        self.sleeping: list[Move] = []

    @rule(key=keys)
    def save(self, key: UUID) -> None:
        if not self.is_between(key):
            text = self.next()
            Profile(user_id=key, bio=text).save()
            self.model[key] = text

    @rule(key=keys)
    def delete(self, key: UUID) -> None:
        if not self.is_between(key):
            Profile.objects.filter(user_id=key).delete()
            self.model.pop(key, None)

    @rule()
    def update_all(self) -> None:
        if not any(map(self.is_between, KEYS)):
            text = self.next()
            Profile.objects.across_shards().update(bio=text)
            self.model = dict.fromkeys(self.model, text)

    @rule(key=keys, alias=st.sampled_from(["shard_1", "shard_2"]))
    def write_by_an_old_map(self, key: UUID, alias: str) -> None:
        """As a process that believes `alias` to be the owner: it is, or the write is refused."""
        text = self.next()
        try:
            with transaction.atomic(alias), connections[alias].cursor() as cursor:
                cursor.execute(RAW, [key, text])
        except SlotMoved:
            return
        assert slot_cache.renew().owners[int(key.hex[:8], 16) % 1000] == alias
        self.model[key] = text

    @precondition(lambda self: self.mover is None)
    @rule()
    def begin(self) -> None:
        source = slot_cache.renew().owners[SLOTS[0]]
        target = {"shard_1": "shard_2", "shard_2": "shard_1"}[source]
        self.mover = run.begin(source, target, SLOTS[:2])

    @precondition(lambda self: self.mover is not None)
    @rule(steps=st.integers(1, 9))
    def go_on(self, steps: int) -> None:
        assert self.mover
        for _ in range(steps):
            if self.mover.state in record.ENDED:
                break
            run._STEPS[Move.State(self.mover.state)](self.mover, quiet)
        if self.mover.state in record.ENDED:
            self.mover = None

    @precondition(lambda self: self.mover is not None)
    @rule()
    def crash(self) -> None:
        """The mover is gone, or only asleep; another process finds the move as it is recorded."""
        assert self.mover
        self.sleeping.append(self.mover)
        self.mover = run.resume()

    @precondition(lambda self: self.mover is not None)
    @rule()
    def abort(self) -> None:
        assert self.mover
        try:
            run.abort(self.mover, quiet)
        except MoveRefused:
            return
        self.mover = None

    @precondition(lambda self: self.sleeping)
    @rule()
    def wake(self) -> None:
        """A mover that slept takes the step that it believes to be next."""
        sleeping = self.sleeping.pop()
        if sleeping.state in record.ENDED:
            return
        try:
            run._STEPS[Move.State(sleeping.state)](sleeping, quiet)
        except (MoveFailed, SlotMoved, DatabaseError):
            run._tidy(sleeping)
        if self.mover and self.mover.pk == sleeping.pk:
            self.mover.refresh_from_db()
            if self.mover.state in record.ENDED:
                self.mover = None

    @invariant()
    def every_row_once(self) -> None:
        everybody = Profile.objects.across_shards().values_list("user_id", "bio")
        assert sorted(everybody) == sorted(self.model.items())
        for key, text in self.model.items():
            assert Profile.objects.get(user_id=key).bio == text

    @invariant()
    def one_owner_at_most(self) -> None:
        for slot in {SLOTS[0], SLOTS[1], 9, 400}:
            assert len(owners_of(slot)) <= 1

    def is_between(self, key: UUID) -> bool:
        """Whether nobody takes writes to a key just now; the ORM would wait for a mover."""
        return not owners_of(int(key.hex[:8], 16) % 1000)

    def next(self) -> str:
        self.number += 1
        return str(self.number)

    def teardown(self) -> None:
        if self.mover:
            self.mover.refresh_from_db()
            run.run(self.mover, quiet)
        owner = slot_cache.renew().owners[SLOTS[0]]
        self.test.assertNothingLeft(owner=owner, slots=SLOTS[:2])
        self.every_row_once()
        for model in (Activity, Profile):
            model.objects.across_shards().delete()


class MachineTests(MovesTestCase):
    def fill(self) -> None:
        self.keys = []

    def test_in_any_order(self) -> None:
        MovesMachine.test = self
        chosen: Any = settings(
            max_examples=10 if SOAK else 4,
            stateful_step_count=60 if SOAK else 25,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        for _ in rounds([None]):  # others each time
            run_state_machine_as_test(MovesMachine, settings=chosen)
