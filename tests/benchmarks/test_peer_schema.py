import json
from pathlib import Path

import pytest

from benchmarks.peer_schema import BUILT_IN, MIN_RECORDS, read_schema, response_format, violation
from benchmarks.workload import WorkloadError

RECORD = {"name": "eight chars", "kind": "place", "count": -12, "is_open": True, "words": ['\u00e9\\"', ""]}
DOCUMENT = {"records": [RECORD] * MIN_RECORDS}


@pytest.mark.parametrize("indent", [None, 1])
def test_every_beginning_of_a_valid_document_passes(indent: int | None):
    text = json.dumps(DOCUMENT, indent=indent)
    ends = [*range(300), *range(300, len(text), 97), len(text)]
    assert [violation(text[:end], BUILT_IN) for end in ends] == [None] * len(ends)


def test_no_valid_document_fits_the_usual_answer():
    least = {"name": "12345678", "kind": "thing", "count": 0, "is_open": True, "words": ["", ""]}
    assert len(json.dumps({"records": [least] * MIN_RECORDS}, separators=(",", ":"))) > 128 * 16


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[", "$: array where object is due"),
        ("Hello", "$: 'H' begins no value"),
        ('{"record"', "$: no property 'record' here"),
        ('{"records":[{"name":"eight chars","kind":"dog"', "$.records[0].kind: 'dog' is none of"),
        ('{"records":[{"name":"short"', "$.records[0].name: a string of 5 characters"),
        ('{"records":[{"count":1.5,', "$.records[0].count: 1.5 where integer is due"),
        ('{"records":[{"count":true', "$.records[0].count: True where integer is due"),
        ('{"records":[{"count":01', "'1' where ',' is due"),
        ('{"records":[{"count":1}', "$.records[0]: ends without 'is_open'"),
        ('{"records":[]', "$.records: ends with 0 items"),
        ('{"records":[{"name":"a\nb', "'\\n' within a string"),
        ('{"records":[{"name":"a\\q', "'\\\\' within a string"),
        (json.dumps(DOCUMENT) + "x", "text after the document's end"),
    ],
)
def test_what_cannot_become_valid_is_told(text: str, says: str):
    found = violation(text, BUILT_IN)
    assert found is not None
    assert says in found


def test_a_schema_of_ones_own(tmp_path: Path):
    path = tmp_path / "schema.json"
    path.write_text('{"type": "array", "items": {"type": "number"}}', "utf-8")
    schema = read_schema(path)
    assert response_format(schema)["json_schema"]["schema"] == schema
    assert violation("[1, 2.5e3", schema) is None
    path.write_text("[]", "utf-8")
    with pytest.raises(WorkloadError, match="is an object"):
        read_schema(path)
