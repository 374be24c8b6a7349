"""From a user's id to its slot: the seed's function, even, and never a default."""

import random
import re
from collections import Counter
from uuid import UUID, uuid4

from django.db import connection
from django.test import SimpleTestCase, TestCase
from hypothesis import example, given
from hypothesis import strategies as st

from sharding.errors import InvalidShardKey, ShardingError
from sharding.hashing import SLOTS, slot_for

REST = "-7dec-41d0-a765-00a0c91e6bf6"
# First 8 digits of an id -> parseInt(digits, 16) % 1000 in the seed's language.
KNOWN = {
    "00000000": 0,
    "00000001": 1,
    "000003e7": 999,
    "000003e8": 0,
    "7fffffff": 647,
    "80000000": 648,
    "f81d4fae": 510,
    "ffffffff": 295,
}


def expected_slot(text: str) -> int | None:
    """The slot by another way than the code's: digit by digit; None for what is no UUID."""
    groups = text.split("-")
    if [len(group) for group in groups] not in ([32], [8, 4, 4, 4, 12]):
        return None
    # Not text.lower(): some characters beyond ASCII become an ASCII letter by it.
    digits = {digit: value for value, digit in enumerate("0123456789abcdef")}
    digits |= {digit.upper(): value for digit, value in digits.items()}
    if any(digit not in digits for group in groups for digit in group):
        return None
    return sum(digits[digit] * 16**power for power, digit in enumerate(groups[0][7::-1])) % 1000


def distorted(user_id: UUID) -> list[str]:
    """Texts that uuid.UUID(), int() or a careless pattern would take for this id."""
    text, plain = str(user_id), user_id.hex
    return [
        f"{{{text}}}",
        f"urn:uuid:{text}",
        f"uuid:{text}",
        f"{text[:4]}-{text[4:]}",
        plain[:4] + "-" + plain[4:],
        "-".join(re.findall("....", plain)),
        text.replace("-", "_"),
        f"{plain[:1]}_{plain[1:31]}",
        f"{plain[:4]}_{plain[5:]}",
        f"{plain[:20]}_{plain[21:]}",
        f"0x{plain[2:]}",
        f"+{plain[1:]}",
        f" {plain[1:]}",
        f" {text}",
        f"{text} ",
        f"{text}\n",
        f"{text}\0",
        text[:-1],
        f"{text}0",
        plain[:-1],
        f"{plain}0",
        text.translate({ord(digit): ord(digit) - ord("0") + ord("٠") for digit in "0123456789"}),
        text.translate({ord(digit): ord(digit) - ord("0") + ord("０") for digit in "0123456789"}),
        text[:7] + "g" + text[8:],
        "",
    ]


class SlotForTests(SimpleTestCase):
    def test_known_values(self) -> None:
        for digits, slot in KNOWN.items():
            text = digits + REST
            with self.subTest(digits=digits):
                self.assertEqual(int(digits, 16) % 1000, slot)
                self.assertEqual(slot_for(text), slot)
                self.assertEqual(slot_for(UUID(text)), slot)

    def test_only_the_first_digits_count(self) -> None:
        self.assertEqual(slot_for("000003e7-ffff-ffff-ffff-ffffffffffff"), 999)
        self.assertEqual(slot_for("000003e7" + "0" * 24), 999)

    def test_even_over_a_million_ids(self) -> None:
        # Chi-square with 999 degrees of freedom: 999 on average, above 1250 once in 10^7 seeds.
        count = 1_000_000
        data = random.Random("slots").randbytes(16 * count)
        ids = (UUID(bytes=data[at : at + 16], version=4) for at in range(0, len(data), 16))
        found = Counter(map(slot_for, ids))
        expected = count / SLOTS
        chi_square = sum((found[slot] - expected) ** 2 / expected for slot in range(SLOTS))
        self.assertEqual(found.keys(), set(range(SLOTS)))
        self.assertLess(chi_square, 1250)
        # Too even is no sign of randomness either.
        self.assertGreater(chi_square, 750)

    @given(st.uuids())
    def test_every_spelling_of_an_id_has_its_slot(self, user_id: UUID) -> None:
        slot = user_id.int // 2**96 % 1000
        for spelling in (user_id, str(user_id), str(user_id).upper(), user_id.hex):
            self.assertEqual(slot_for(spelling), slot)

    @given(
        st.text()
        | st.text("0123456789abcdefABCDEF-", min_size=30, max_size=40)
        | st.from_regex(r"[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}\n?")
        | st.from_regex(r"[\da-f]{8}-[\da-f]{4}-[\da-f]{4}-[\da-f]{4}-[\da-f]{12}", fullmatch=True)
    )
    @example("K" * 32)
    def test_text_has_the_right_slot_or_raises(self, text: str) -> None:
        expected = expected_slot(text)
        if expected is None:
            with self.assertRaises(InvalidShardKey):
                slot_for(text)
        else:
            self.assertEqual(slot_for(text), expected)

    @given(st.uuids())
    @example(UUID(int=0))
    @example(UUID("12345678" * 4))
    def test_what_only_resembles_an_id_raises(self, user_id: UUID) -> None:
        for text in distorted(user_id):
            # An id without a digit 0-9 is not changed by translating them.
            if text != str(user_id):
                with self.assertRaises(InvalidShardKey, msg=text):
                    slot_for(text)

    @given(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.binary()
        | st.uuids().map(lambda user_id: user_id.bytes)
        | st.uuids().map(lambda user_id: user_id.int)
        | st.uuids().map(lambda user_id: str(user_id).encode())
        | st.uuids().map(lambda user_id: [user_id])
    )
    def test_every_other_type_raises(self, value: object) -> None:
        with self.assertRaises(InvalidShardKey):
            slot_for(value)  # type: ignore[arg-type]

    def test_the_error_says_what_to_pass_and_is_short(self) -> None:
        with self.assertRaises(InvalidShardKey) as caught:
            slot_for("x" * 10_000)
        self.assertIn("xxx... is no UUID", str(caught.exception))
        self.assertIn("uuid.UUID", str(caught.exception))
        self.assertLess(len(str(caught.exception)), 250)
        self.assertIsInstance(caught.exception, ValueError)
        self.assertIsInstance(caught.exception, ShardingError)


class StoredAsHashedTests(TestCase):
    def test_postgresql_reads_what_is_accepted_as_the_id_that_was_hashed(self) -> None:
        for user_id in (uuid4(), UUID(int=0), UUID(int=2**128 - 1)):
            for spelling in (str(user_id), str(user_id).upper(), user_id.hex):
                with self.subTest(spelling=spelling), connection.cursor() as cursor:
                    cursor.execute("SELECT %s::uuid", [spelling])
                    self.assertEqual(cursor.fetchone(), (user_id,))
                    self.assertEqual(slot_for(spelling), slot_for(user_id))
