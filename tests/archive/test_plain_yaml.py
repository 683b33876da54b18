"""YAML that stays text, and YAML that is meant to hurt."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batches.archive.plain_yaml import BadYaml, Value, load

LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1234567", "1234567"),
        ("1e10", "1e10"),
        ("0123", "0123"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("2024-01-01 10:00:00.123456789 +0000", "2024-01-01 10:00:00.123456789 +0000"),
        ("3.10", "3.10"),
        ("yes", "yes"),
        ("no", "no"),
        ("=", "="),
        ("<<", "<<"),
        (".inf", ".inf"),
        ("true", True),
        ("False", False),
        ("'true'", "true"),
        ("null", None),
        ("~", None),
        ("''", ""),
        ("'null'", "null"),
        ("!!str null", "null"),
        ("!!int '5'", "5"),
        ("!!python/object/apply:os.system ['x']", ["x"]),
        ("", None),
        ("# only a comment", None),
        ("[a, [b], {c: d}]", ["a", ["b"], {"c": "d"}]),
        ("{a: &x [1], b: *x}", {"a": ["1"], "b": ["1"]}),
        ("{[a]: b, {c: d}: e, ~: f, true: g, h: i}", {"h": "i"}),
        ("a: |\n  one\n  two\n", {"a": "one\ntwo\n"}),
    ],
    ids=repr,
)
def test_scalars_stay_as_written(text: str, value: Value) -> None:
    assert load(text) == value


CHARACTERS = "is not valid YAML; it holds characters that YAML does not allow"
DEEP = "nests lists and mappings more than 64 deep; make it flat"

HOSTILE = {
    "not closed": ("a: [b", "is not valid YAML; look at line 2, column 1"),
    "tab": ("a:\n\t- b", "is not valid YAML; look at line 2, column 1"),
    "two values": ("a: b: c", "is not valid YAML; look at line 1, column 5"),
    "unknown version": ("%YAML 9.9\n---\na", "is not valid YAML; look at line 1, column 1"),
    "unknown tag handle": ("!e!tag a", "is not valid YAML; look at line 1, column 1"),
    "NUL": ("a: \0", CHARACTERS),
    "escape": ("a: \x1b[2J", CHARACTERS),
    "half a character": ('"\\ud800"', "is not valid YAML; look at line 1, column 4"),
    "character beyond Unicode": ('"\\UFFFFFFFF"', "is not valid YAML; look at line 1, column 4"),
    "deep lists": ("[" * 100_000, DEEP),
    "deep mappings": ("{a: " * 100_000, DEEP),
    "deep blocks": ("- " * 50_000, DEEP),
    "deep mappings as keys": ("? " * 50_000, DEEP),
    "billion laughs": (LAUGHS, None),
    "many aliases": (
        "a: &a x\nb: [" + "*a, " * 101 + "]",
        "uses more than 100 aliases; write the values out",
    ),
    "value in itself": ("&a [*a]", "uses an alias for something that it has not named yet"),
    "unknown alias": ("*a", "uses an alias for something that it has not named yet"),
    "key twice": ("a: b\na: c", "gives the same key twice; keep one"),
    "a flood of values": (
        "- \n" * 300_000,
        "holds more than 20000 values; remove what is not needed",
    ),
    "two documents": (
        "a\n---\nb",
        "holds more than one document; remove the line with --- between them",
    ),
}


@pytest.mark.parametrize(("text", "message"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_yaml_is_refused(text: str, message: str | None) -> None:
    if message is None:
        assert isinstance(load(text), dict)
        return
    with pytest.raises(BadYaml) as caught:
        load(text)
    assert str(caught.value) == message


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.text(max_size=200),
        st.text(alphabet="ab:-?[]{}&*!|>'\"%@`,# \n\t\\~<", max_size=200),
    )
)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        value = load(text)
    except BadYaml as bad:
        value = str(bad)

    assert value is None or isinstance(value, str | bool | list | dict)
