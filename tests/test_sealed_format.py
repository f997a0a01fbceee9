"""The vectors in `tests/data/sealed.json` hold for a second implementation. `sealed_vectors.rs` tests ours."""

from __future__ import annotations

import json

import pytest
import sealed_reference as reference

FILE = json.loads(reference.VECTORS.read_text(encoding="utf-8"))
KEYS = [reference.Key(reference.parse_key(key["text"])) for key in FILE["keys"]]


def test_the_file_is_the_one_that_the_second_implementation_writes():
    assert reference.vectors() == FILE


def test_a_key_has_its_text_and_its_id():
    assert [(reference.key_text(reference.parse_key(key["text"])), key["id"]) for key in FILE["keys"]] == [
        (key["text"], derived.id) for key, derived in zip(FILE["keys"], KEYS, strict=True)
    ]


@pytest.mark.parametrize("number", range(len(FILE["refused_keys"])))
def test_a_text_that_is_no_key_is_refused(number):
    with pytest.raises(ValueError, match=r"key|checksum"):
        reference.parse_key(FILE["refused_keys"][number])


@pytest.mark.parametrize("number", range(len(FILE["rows"])))
def test_a_row_is_sealed_and_opened(number):
    case = FILE["rows"][number]
    key = KEYS[case["key"]]
    assert key.seal(case["row"], bytes.fromhex(case["nonce"])) == case["stored"]
    assert key.open(case["stored"]) == case["row"]


@pytest.mark.parametrize("case", FILE["altered"], ids=lambda case: case["why"].replace(" ", "-"))
def test_an_altered_row_is_not_opened(case):
    for key in KEYS:
        with pytest.raises(reference.AlteredError):
            key.open(case["stored"])
