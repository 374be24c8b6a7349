"""Reading lines for an import: what is valid, what is refused and why. No database."""

import csv
import io
import json
import tempfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from django.core.validators import validate_email
from django.test import SimpleTestCase
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from users.importing import values
from users.importing.errors import UnreadableFile, WrongColumns
from users.importing.reading import Batch, Row, batches
from users.importing.records import LONGEST_LINE, Record, csv_records, ndjson_records
from users.importing.running import _ahead
from users.importing.source import open_source
from users.importing.staging import NULL, escaped

HEADER = "id,email,name,is_active,date_joined,last_login,display_name,country,plan,bio,settings"
V4 = "f81d4fae-7dec-41d0-a765-00a0c91e6bf6"


def read(text: str) -> Batch:
    (batch,) = batches(*csv_records(io.StringIO(text, newline="")), size=100)
    return batch


def read_ndjson(*lines: object) -> Batch:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (batch,) = batches(*ndjson_records(texts), size=100)
    return batch


def read_bytes(content: bytes, name: str = "users.csv") -> Batch:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        with open_source(str(path)) as source:
            (batch,) = batches(*source.records(), size=100)
            return batch


def parsed(column: str, *texts: str) -> list[str]:
    return list(values.PARSERS[column](texts))


class ValueTests(SimpleTestCase):
    def refuse(self, column: str, text: str, reason: str) -> None:
        with (
            self.subTest(column=column, text=text[:40]),
            self.assertRaisesRegex(ValueError, reason),
        ):
            parsed(column, text)

    def test_emails_are_lowered(self):
        self.assertEqual(parsed("email", "Ada@Example.COM"), ["ada@example.com"])

    def test_emails(self):
        accepted = ["o'neil@example.com", '"a,b"@example.com', "a@münchen.de", "a@localhost"]
        self.assertEqual(parsed("email", *accepted), accepted)
        for text in ("ada", "ada@", "@example.com", "a b@example.com", " a@example.com", "a@b"):
            self.refuse("email", text, "is no email address")
        self.refuse("email", "", "is missing")
        self.refuse("email", "a@" + "b" * 60 + ".com" * 60, "longer than 254")

    @settings(deadline=None)
    @given(st.from_regex(values._USUAL_EMAIL, fullmatch=True))
    def test_what_the_quick_check_takes_for_an_email_django_does_too(self, email: str):
        assume(len(email) <= 254)  # longer ones are refused before
        validate_email(email)

    @settings(deadline=None)
    @given(st.from_regex(values._USUAL_TIMESTAMP, fullmatch=True))
    def test_what_the_quick_check_takes_for_a_timestamp_python_does_too(self, text: str):
        datetime.fromisoformat(text).astimezone(UTC)

    def test_ids_are_of_version_4(self):
        plain = V4.replace("-", "")
        self.assertEqual(parsed("id", V4, V4.upper(), plain), [V4] * 3)
        self.refuse("id", "01890a5d-ac96-774b-bcce-b302099a8057", "version 4: the first 32 bits")
        self.refuse("id", "f81d4fae-7dec-41d0-c765-00a0c91e6bf6", "version 4")
        for text in (
            "1",
            "{" + V4 + "}",
            f"urn:uuid:{V4}",
            V4[:-1],
            "-" + plain,
            plain.replace("f", "_"),
        ):
            self.refuse("id", text, "is no UUID$")

    def test_absent_ids_are_made(self):
        first, second = parsed("id", "", "")
        self.assertNotEqual(first, second)
        self.assertEqual(parsed("id", first), [first])

    def test_booleans(self):
        self.assertEqual(parsed("is_active", "true", "FALSE", "1", "no", ""), [*"tftf", NULL])
        self.refuse("is_active", "maybe", "neither true nor false")

    def test_timestamps(self):
        given = ["2026-10-28T18:30:00+01:00", "2026-10-31 18:30", "2026-10-31", ""]
        stored = [given[0], "2026-10-31T18:30:00+00:00", "2026-10-31T00:00:00+00:00", NULL]
        self.assertEqual(parsed("date_joined", *given), stored)
        for text in ("31.10.2026", "2026-02-30", "2026-02-29T10:00:00Z", "now", "infinity"):
            self.refuse("last_login", text, "is no ISO 8601 timestamp")

    def test_timestamps_outside_of_the_calendar_in_utc_are_refused(self):
        self.refuse("last_login", "0001-01-01T00:00:00+05:00", "is no ISO 8601")
        self.refuse("last_login", "9999-12-31T23:00:00-05:00", "is no ISO 8601")

    def test_countries_are_raised(self):
        self.assertEqual(parsed("country", "CH", "ch", ""), ["CH", "CH", ""])
        for text in ("CHE", "C", "C1", "ÄÖ", "ß", "C\n"):
            self.refuse("country", text, "two letters")

    def test_plans(self):
        self.assertEqual(parsed("plan", "free", "team", ""), ["free", "team", NULL])
        self.refuse("plan", "gold", "none of free, pro, team")

    def test_lengths(self):
        self.assertEqual(parsed("name", "x" * 150), ["x" * 150])
        self.refuse("name", "x" * 151, "longer than 150")
        self.refuse("display_name", "x" * 151, "longer than 150")

    def test_settings(self):
        self.assertEqual(parsed("settings", '{"a":1}', ""), ['{"a": 1}', NULL])
        self.refuse("settings", "[1]", "no JSON object")
        self.refuse("settings", r'{"a": ["\u0000"]}', "NUL")
        for text in ("{", '{"a": NaN}', r'{"\ud800": 1}', '{"a": 1, "a": 2}', '{"a": 1e999}'):
            self.refuse("settings", text, "no JSON that can be stored")
        self.refuse("settings", '{"a": %s}' % ("[" * 100_000), "no JSON that can be stored")

    def test_a_backslash_before_u0000_is_no_nul(self):
        (stored,) = parsed("settings", r'{"a": "\\u0000"}')
        self.assertEqual(stored, r'{"a": "\\\\u0000"}')

    def test_escapes_what_copy_would_take_for_its_own(self):
        self.assertEqual(
            escaped(["\\", "\t", "\n\r", r"\N", "a"]), [r"\\", r"\t", r"\n\r", r"\\N", "a"]
        )


class CsvTests(SimpleTestCase):
    def reasons(self, batch: Batch) -> list[tuple[int, str]]:
        return [(line, reason) for line, reason, _ in batch.rejected]

    def test_reads_columns_in_any_order(self):
        batch = read(f"country,email,id\nch,A@example.com,{V4}\n")
        row = Row(2, f"ch,A@example.com,{V4}\n", V4, "a@example.com", *batch.rows[0][4:])
        self.assertEqual(batch.rows, [row])
        self.assertEqual(row.account.split("\t"), [V4, "a@example.com", NULL, NULL, NULL, NULL])
        self.assertEqual(row.profile.split("\t"), [V4, NULL, NULL, "CH", NULL, NULL, NULL])

    def test_numbers_lines_across_records_of_several_lines(self):
        batch = read('email,bio\na@example.com,"1\n2\r\n3"\n\nbad,"\n"\nb@example.com,x\n')
        self.assertEqual([row.line for row in batch.rows], [2, 8])
        self.assertEqual(self.reasons(batch), [(6, "email: is no email address")])
        self.assertEqual(batch.rejected[0].content, 'bad,"\n"')

    def test_all_reasons_against_a_line_are_told(self):
        batch = read("email,plan,country\nbad,gold,x\n")
        self.assertEqual(
            self.reasons(batch),
            [
                (
                    2,
                    "email: is no email address; plan: is none of free, pro, team; "
                    "country: is not two letters of ISO 3166, such as CH",
                )
            ],
        )

    def test_wrong_numbers_of_fields(self):
        batch = read("email,bio\na@example.com\nb@example.com,x,y\n")
        self.assertEqual([line for line, *_ in batch.rejected], [2, 3])
        self.assertIn("has 3 fields, and the header 2", batch.rejected[1].reason)

    def test_broken_quotes(self):
        batch = read('email,bio\n"a@example.com"x,1\nb@example.com,2\n"c@example.com,3\n')
        self.assertEqual([row.line for row in batch.rows], [3])
        self.assertEqual([line for line, *_ in batch.rejected], [2, 4])
        self.assertIn("is no CSV", batch.rejected[1].reason)

    def test_a_field_that_is_too_long_spoils_only_its_line(self):
        batch = read(f"email,bio\na@example.com,{'x' * 140_000}\nb@example.com,2\n")
        self.assertEqual([row.line for row in batch.rows], [3])
        self.assertIn("field larger than field limit", batch.rejected[0].reason)

    def test_doubles_in_a_batch(self):
        batch = read(
            f"email,id\na@example.com,{V4}\nA@example.com,\nb@example.com,{V4}\nbad,\nbad,\n"
        )
        self.assertEqual([row.line for row in batch.rows], [2])
        first, second, *_ = self.reasons(batch)
        self.assertEqual(first, (3, "email: is that of line 2 too"))
        self.assertEqual(second, (4, "id: is that of line 2 too"))

    def test_a_refused_line_is_nobodys_double(self):
        batch = read("email,plan\na@example.com,gold\na@example.com,free\n")
        self.assertEqual([row.line for row in batch.rows], [3])

    def test_nul(self):
        batch = read("email,bio\na@example.com,\0\nb@example.com,\n")
        self.assertEqual(self.reasons(batch), [(2, "holds a NUL character")])

    def test_columns_that_are_refused(self):
        for header, message in (
            ("email,nmae", "Unknown: nmae. The columns are id, email"),
            ("email,", "Unknown: a column without a name"),
            ("name", "email is missing"),
            ("email,name,name", "name stands more than once"),
            ("email,password,is_staff", "is_staff, password cannot be imported"),
        ):
            with self.subTest(header), self.assertRaisesRegex(WrongColumns, message):
                csv_records([header])

    def test_no_header(self):
        for text in ("", "\n", "\r\n"):
            with self.subTest(text), self.assertRaisesRegex(UnreadableFile, "empty"):
                csv_records(io.StringIO(text, newline=""))

    def test_holds_one_batch_at_a_time(self):
        def lines() -> Iterator[str]:
            yield "email\n"
            for number in range(1000):
                consumed.append(number)
                yield f"{number}@example.com\n"

        consumed: list[int] = []
        found = batches(*csv_records(lines()), size=10)
        next(found)
        self.assertEqual(len(consumed), 10)
        next(found)
        self.assertEqual(len(consumed), 20)

    def test_reads_one_batch_ahead_and_no_more(self):
        def numbers() -> Iterator[int]:
            for number in range(10):
                produced.append(number)
                yield number

        produced: list[int] = []
        ahead = _ahead(numbers())
        for number in range(5):
            self.assertEqual(next(ahead), number)
            self.assertLessEqual(len(produced), number + 2)
        ahead.close()
        self.assertLessEqual(len(produced), 7)


class BytesTests(SimpleTestCase):
    def test_a_byte_order_mark_is_no_part_of_the_header(self):
        content = '\ufeff"email"\r\na@example.com\r\n'.encode()
        self.assertEqual([row.email for row in read_bytes(content).rows], ["a@example.com"])

    def test_what_is_no_utf8_spoils_only_its_line(self):
        batch = read_bytes(b"email,bio\na@example.com,caf\xe9\nb@example.com,caf\xc3\xa9\n")
        self.assertEqual([row.line for row in batch.rows], [3])
        self.assertEqual(batch.rejected[0][:2], (2, "is not UTF-8"))
        self.assertEqual(batch.rejected[0].content.encode(errors="surrogateescape")[-1:], b"\xe9")

    def test_a_file_that_is_no_utf8(self):
        for content in ("email\na@example.com\n".encode("utf-16"), b"\x80\x81,email\n"):
            with self.subTest(content), self.assertRaisesRegex(UnreadableFile, "UTF-8"):
                read_bytes(content)

    def test_a_line_that_is_far_too_long_is_refused_and_not_kept(self):
        long = b"a@example.com," + b"x" * (3 * LONGEST_LINE)
        for name in ("users.csv", "users.ndjson"):
            with self.subTest(name):
                head = b"email,bio\n" if name == "users.csv" else b'{"email":"b@example.com"}\n'
                last = (
                    b"c@example.com,\n" if name == "users.csv" else b'{"email":"c@example.com"}\n'
                )
                batch = read_bytes(head + long + b"\n" + last, name)
                self.assertEqual(batch.rows[-1].line, 3)
                self.assertEqual([line for line, *_ in batch.rejected], [2])
                self.assertLess(len(batch.rejected[0].content), LONGEST_LINE + 100)

    def test_files_that_cannot_be_opened(self):
        with tempfile.TemporaryDirectory() as folder:
            for name, message in ((f"{folder}/none.csv", "No such file"), (folder, "directory")):
                with self.assertRaisesRegex(UnreadableFile, message), open_source(name):
                    pass


class NdjsonTests(SimpleTestCase):
    def test_reads_typed_values(self):
        batch = read_ndjson(
            {"email": "a@example.com", "is_active": False, "settings": {"a": "é\n"}, "name": None},
            "",
            {"email": "b@example.com", "is_active": "yes", "bio": "1\t2"},
        )
        self.assertEqual([row.line for row in batch.rows], [1, 3])
        self.assertEqual(batch.rows[0].account.split("\t")[2:4], [NULL, "f"])
        self.assertEqual(batch.rows[0].profile.split("\t")[-1], r'{"a": "é\\n"}')
        self.assertEqual(batch.rows[1].profile.split("\t")[-2:], [r"1\t2", NULL])

    def test_lines_that_are_refused(self):
        for line, reason in (
            ("{", "is no JSON"),
            ("1", "is no JSON object"),
            ('{"email": "a@example.com", "email": "b@example.com"}', "a name comes twice"),
            ({"name": "x"}, "email: is missing"),
            ({"email": "a@example.com", "nmae": "x"}, "unknown: nmae"),
            ({"email": "a@example.com", "is_superuser": True}, "is_superuser cannot be imported"),
            ({"email": 1}, "email: is not a text"),
            ({"email": "a@example.com", "settings": "{}"}, "settings: is not an object"),
            ({"email": "a@example.com", "is_active": 1}, "is_active: is not true or false"),
            ({"email": "a@example.com", "bio": "\0"}, "bio: holds a NUL"),
            ({"email": "a@example.com", "bio": "\ud800"}, "bio: is not UTF-8"),
        ):
            with self.subTest(line):
                batch = read_ndjson(line)
                self.assertEqual(batch.rows, [])
                self.assertIn(reason, batch.rejected[0].reason)

    def test_a_file_that_is_one_array_or_empty(self):
        for lines, message in ((["[\n"], "one JSON array"), (["\n", " \n"], "no lines")):
            with self.subTest(lines), self.assertRaisesRegex(UnreadableFile, message):
                ndjson_records(lines)


def _line(row: Iterable[str]) -> str:
    file = io.StringIO()
    csv.writer(file).writerow(row)
    return file.getvalue()


class PropertyTests(SimpleTestCase):
    @settings(deadline=None)
    @given(st.lists(st.lists(st.text(max_size=8), min_size=2, max_size=3), min_size=1, max_size=6))
    def test_every_line_is_a_row_or_rejected(self, lines: list[list[str]]):
        texts = [_line(line) for line in lines]
        header, found = csv_records(io.StringIO("email,bio\n" + "".join(texts), newline=""))
        records: list[Record] = list(found)
        self.assertEqual([record.content for record in records], texts)
        for batch in batches(header, iter(records), size=100):
            seen = [*(row.line for row in batch.rows), *(row.line for row in batch.rejected)]
            self.assertEqual(sorted(seen), [record.line for record in records])
