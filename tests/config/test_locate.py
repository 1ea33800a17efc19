"""Every key and value tomllib reports is found at its place."""

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmtool.config.locate import Place, Span, locate, parse_key
from mmtool.config.shape import quoted, quoted_key

PLAIN = st.text("abcXYZ019_-", min_size=1, max_size=6)
ODD = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=6)
KEYS = PLAIN | ODD
SCALARS = st.one_of(
    st.booleans().map(lambda b: str(b).lower()),
    st.integers(-(10**9), 10**9).map(str),
    st.floats(allow_nan=False).map(repr),
    st.sampled_from(["0xff", "1_000", "1979-05-27 07:32:00", "07:32:00", "inf", "-nan"]),
    ODD.map(quoted),
    st.text("abc #[]{}=,.\\", max_size=8).map(lambda s: f"'{s}'"),
    st.text('ab\n\\" #]=', max_size=12).map(
        lambda s: '"""' + s.replace("\\", "\\\\").replace('"', '\\"') + '"""'
    ),
    st.text('ab\n\\" #]=', max_size=12).map(lambda s: f"'''{s}'''"),
    st.sampled_from(['""""""', '"""a"""""', "''''b'''", '"""x \\\n  y"""']),
)
GAPS = st.sampled_from(["", " ", "\n", " # a = [comment]\n ", "\n\n  "])
SPACE = st.sampled_from(["", " ", "\t "])


@st.composite
def lists(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    gap = draw(GAPS)
    members = draw(st.lists(values, max_size=3))
    end = draw(st.sampled_from(["", ","])) if members else ""
    return f"[{gap}{(gap + ',' + gap).join(members)}{gap}{end}{gap}]"


@st.composite
def inline_tables(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    table = draw(st.dictionaries(KEYS, values, max_size=3))
    space = draw(SPACE)
    pairs = [f"{space}{quoted_key(k)}{space}={space}{v}{space}" for k, v in table.items()]
    return "{" + ",".join(pairs) + "}"


VALUES = st.recursive(SCALARS, lambda v: lists(v) | inline_tables(v), max_leaves=6)


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Draw valid TOML text: plain and dotted keys, tables, arrays of tables, comments."""
    blocks = []
    for header in draw(
        st.lists(st.sampled_from(["", "[{}]", "[ {} . sub ]", "[[{}]]", "[[{}.x]]"]), max_size=4)
    ):
        blocks.append(header.format(quoted_key(draw(KEYS))) + draw(st.sampled_from(["", " # c"])))
        for key, value in draw(st.dictionaries(KEYS, VALUES, max_size=3)).items():
            space, comment = draw(SPACE), draw(st.sampled_from(["", "  # x = 1", "\n\n"]))
            more = draw(st.sampled_from(["", f"{space}.{space}deep", ".'quo ted'"]))
            blocks.append(f"{space}{quoted_key(key)}{more}{space}={space}{value}{comment}")
    return "\n".join(blocks)


def walk(value: Any, path: tuple[str, ...] = ()) -> Any:
    """Give every path of parsed TOML with its value."""
    if path:
        yield path, value
    if isinstance(value, dict):
        for key, member in value.items():
            yield from walk(member, (*path, key))
    elif isinstance(value, list):
        for position, member in enumerate(value):
            yield from walk(member, (*path, str(position)))


def cut(text: str, span: Span) -> str:
    return text.split("\n")[span.line - 1][span.column - 1 : span.column - 1 + span.length]


def key_text(raw: str) -> str:
    return next(iter(tomllib.loads(f"{raw} = 1")))


@settings(max_examples=300, deadline=None)
@given(text=documents())
def test_every_key_tomllib_reports_has_a_place_and_the_text_there_is_that_key(text: str) -> None:
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # a key drawn twice: such text never reaches the scanner
    places = locate(text)
    reported = dict(walk(parsed))
    assert places.keys() == reported.keys()
    for path, value in reported.items():
        place = places[path]
        if place.key != place.value and not path[-1].isdigit():
            assert key_text(cut(text, place.key)) == path[-1]
        raw = cut(text, place.value)
        if not isinstance(value, (dict, list)) and "\n" not in str(value):
            try:
                same = tomllib.loads(f"v = {raw}")["v"]
            except tomllib.TOMLDecodeError:
                assert raw.startswith(('"""', "'''"))  # its end is on a later line
            else:
                assert repr(same) == repr(value)


def test_the_drawn_documents_are_mostly_valid() -> None:
    valid = []

    @settings(max_examples=60, deadline=None, database=None)
    @given(text=documents())
    def count(text: str) -> None:
        try:
            tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            valid.append(False)
        else:
            valid.append(True)

    count()
    assert sum(valid) > len(valid) / 2


def test_places_are_line_column_and_length_from_one() -> None:
    text = '# head\n[data]\n  "dataset" = "ave"   # note\nmodalities = [\n  "audio",\n]\n'
    places = locate(text)
    assert places["data", "dataset"] == Place(Span(3, 3, 9), Span(3, 15, 5))
    assert places["data", "modalities", "0"].value == Span(5, 3, 7)
    assert places["data", "modalities"].value == Span(4, 14, 1)
    assert places["data",] == Place(Span(2, 2, 4), Span(2, 1, 6))


def test_windows_line_ends_are_not_part_of_a_value() -> None:
    text = 'a = 1\r\nb = """x\r\ny"""\r\n[t]\r\nc = 2021-01-01\r\n'
    places = locate(text)
    assert {p: cut(text, place.value) for p, place in places.items()} == {
        ("a",): "1",
        ("b",): '"""x',
        ("t",): "[t]",
        ("t", "c"): "2021-01-01",
    }


def test_an_explicit_header_is_the_place_of_a_table_first_named_in_a_longer_one() -> None:
    assert locate("[a.b]\n[a]\n")["a",].key.line == 2


def test_a_repeated_table_header_places_its_keys_by_number() -> None:
    places = locate("[[t]]\nx = 1\n[[t]]\nx = 2\n[t.sub]\ny = 3\n")
    assert places["t", "1", "x"].key.line == 4
    assert places["t", "1", "sub", "y"].key.line == 6


@given(parts=st.lists(KEYS, min_size=1, max_size=4))
def test_a_dotted_key_is_split_into_the_parts_it_was_made_of(parts: list[str]) -> None:
    assert parse_key(".".join(quoted_key(part) for part in parts)) == tuple(parts)


@pytest.mark.parametrize("text", ["", "a.", ".a", "a b", "a..b", 'a"', json.dumps("a") + "b"])
def test_text_that_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_key(text)
