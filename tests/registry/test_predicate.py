"""The filter language: what it accepts, what it refuses, and that Python, evaluate and SQL agree on it."""

import pickle
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Column, Connection, MetaData, Table, create_engine, delete, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from registry.errors import InvalidInputError
from registry.predicate import MAX_COMPARISONS, MAX_DEPTH, MAX_LENGTH, parse_predicate
from registry.sql.where import compile_predicate
from tests.examples import scaled

NAMES = ("year", "month", "pass")
TOP = 2**63 - 1

keys = Table("keys", MetaData(), *(Column(f"k{i}", BigInteger, nullable=False) for i in range(len(NAMES))))
COLUMNS = dict(zip(NAMES, keys.c, strict=True))


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        keys.create(connection)
        yield connection
    engine.dispose()


def selected_by_sql(connection, predicate, rows):
    connection.execute(delete(keys))
    connection.execute(insert(keys), [dict(zip(keys.c.keys(), row, strict=True)) for row in rows])
    return sorted(tuple(row) for row in connection.execute(select(keys).where(compile_predicate(predicate, COLUMNS))))


def selected_by_evaluate(predicate, rows):
    return sorted(row for row in rows if predicate.evaluate(dict(zip(NAMES, row, strict=True))))


def sql(text, dialect):
    clause = compile_predicate(parse_predicate(text, NAMES), COLUMNS)
    return str(clause.compile(dialect=dialect, compile_kwargs={"literal_binds": True})).replace("keys.", "")


# The language


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("year == 2022 and month in (1, 2)", (2022, 2, 0), True),
        ("year == 2022 and month in (1, 2)", (2022, 3, 0), False),
        ("1 <= month < 4", (0, 4, 0), False),
        ("1 <= month < 4", (0, 1, 0), True),
        ("month not in [1, 2]", (0, 3, 0), True),
        ("not (pass in range(1, 300, 2))", (0, 0, 299), False),
        ("not (pass in range(1, 300, 2))", (0, 0, 300), True),
        ("pass in range(10, 0, -3)", (0, 0, 1), True),
        ("pass in range(3)", (0, 0, 3), False),
        ("pass in ()", (0, 0, 0), False),
        ("month in {-1, +2, 2 * 3}", (0, 6, 0), True),
        ("year*100 + month >= 202203", (2022, 2, 0), False),
        ("year*100 + month >= 202203", (2022, 3, 0), True),
        ("pass % (2 + 1) == 2", (0, 0, -1), True),
        ("pass // 2 == -1", (0, 0, -1), True),
        ("-pass == +1_000", (0, 0, -1000), True),
        ("year == 2022\n  or\tmonth == 1\n", (2021, 1, 0), True),
        ("0 == 0", (0, 0, 0), True),
        ("year == -9223372036854775808", (-(2**63), 0, 0), True),
        ("pass in range(5, -9223372036854775808, -9223372036854775808)", (0, 0, 5), True),
        ("pass in range(9223372036854775807, -9223372036854775808, -1)", (0, 0, -TOP), True),
        ("pass in range(-9223372036854775808, 9223372036854775807, 4611686018427387904)", (0, 0, -(2**62)), True),
    ],
)
def test_a_filter_means_what_python_means_by_it(connection, text, key, expected):
    predicate = parse_predicate(text, NAMES)
    assert predicate.evaluate(dict(zip(NAMES, key, strict=True))) is expected
    assert selected_by_sql(connection, predicate, [key]) == [key] * expected


@pytest.mark.parametrize("name", ["pass", "class", "is", "lambda", "True", "x", "_", "__"])
def test_a_key_may_be_named_by_a_keyword_of_python(name):
    predicate = parse_predicate(f"{name} == 3 and not {name} in (1, 2)", ["year", name])
    assert predicate.evaluate({"year": 0, name: 3})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it is empty"),
        (" \n", "it is empty"),
        (2022, "it is not a string"),
        ("year", "'year' is a number: compare it, as in year == 0"),
        ("not month % 2", "'month % 2' is a number: compare it, as in month % 2 == 0"),
        ("year = 2022", "instead of '=' use '=='"),
        ("year == 2022 & month == 1", "instead of '&' use 'and'"),
        ("year == 2022 | month == 1", "instead of '|' use 'or'"),
        ("year / 4 == 1", "instead of '/' use '//'"),
        ("year is 2022", "instead of 'is' use '=='"),
        ("month == 01", "write 1, not 01"),
        ("month == 00", "write 0, not 00"),
        ("month == 1.5", "'1.5' is not a decimal integer"),
        ("month == 0x1", "'0x1' is not a decimal integer"),
        ("month == 1and year == 2", "'1and' is not a decimal integer"),
        ("month == '1'", '"\'" is not part of the language'),
        ("month == True", "'True' is not part of the language"),
        ("month ≥ 1", "'≥' is not part of the language"),
        ("month == 1\0", r"'\x00' is not part of the language"),
        ("month == \ud800", r"'\ud800' is not part of the language"),
        ("(pass := 1) == 1", "':' is not part of the language"),
        ("year.real == 1", "'.' is not part of the language"),
        ("month ** 2 == 4", "'month ** 2' is not part of the language"),
        ("pass << 2 == 4", "'pass << 2' is not part of the language"),
        ("pass(1) == 4", "'pass(1)' is not part of the language"),
        ("pass[1] == 4", "'pass[1]' is not part of the language"),
        ("range == 4", "'range' is not part of the language"),
        ("__import__('os')", "there is no key '__import__'"),
        ("lambda: 1", "there is no key 'lambda'"),
        ("month == (pass or 1)", "'pass or 1' is a condition where a number is expected"),
        ("(month == 1) == (pass == 1)", "'month == 1' is a condition where a number is expected"),
        ("(1, 2) == month", "'(1, 2)' is only understood after 'in'"),
        ("range(3)", "'range(3)' is only understood after 'in'"),
        ("month in (1)", "what follows 'in', '1', is not a list such as (1, 2) or (1,)"),
        ("month in pass", "what follows 'in', 'pass', is not a list"),
        ("month in (1, pass)", "'pass' is not an integer"),
        ("month in (*pass,)", "'*pass' is not part of the language"),
        ("month in range(pass)", "'pass' is not an integer"),
        ("month in range()", "'range()', is not a list such as (1, 2) or (1,), nor a range() of one to three"),
        ("month in range(1, 2, 3, 4)", "'range(1, 2, 3, 4)', is not"),
        ("month in range(1, 2, 0)", "'range(1, 2, 0)', is not"),
        ("month in range(**pass)", "'range(**pass)', is not"),
        ("month % 0 == 1", "'month % 0' does not divide by a constant other than zero"),
        ("month // (3 - 3) == 1", "'month // (3 - 3)' does not divide by a constant other than zero"),
        ("month % pass == 1", "'month % pass' does not divide by a constant other than zero"),
        ("year == 2022 month", "invalid syntax at 'month'"),
        ("year ==", "it ends early"),
        ("year == 2022)", "unmatched ')' at ')'"),
        ("(year == 2022", "'(' was never closed at '(year == 2022'"),
        ("year == 9223372036854775808", "'9223372036854775808' does not fit in 64 bits"),
        ("year == -9223372036854775809", "'-9223372036854775809' does not fit in 64 bits"),
        ("year == 4611686018427387904 * 2", "'4611686018427387904 * 2' does not fit in 64 bits"),
        ("year == " + 5000 * "9", "9… does not fit in 64 bits"),
        ("year * month * pass == 1", "what is compared at 'year * month * pass == 1' can leave 64 bits"),
        ("year % 9223372036854775807 == 1", "can leave 64 bits"),
    ],
)
def test_what_is_not_of_the_language_is_refused_with_the_reason(text, problem):
    with pytest.raises(InvalidInputError) as caught:
        parse_predicate(text, NAMES)
    message = str(caught.value)
    assert message.startswith(f"The filter {text!r}"[:200])
    assert problem in message
    assert message.endswith("+ - * // % and parentheses; the keys are year, month, pass.")


@pytest.mark.parametrize(("name", "near"), [("yeer", "year"), ("MONTH", "month"), ("AND", "and"), ("passs", "pass")])
def test_an_unknown_name_gets_its_near_matches(name, near):
    with pytest.raises(InvalidInputError, match=f"there is no key '{name}', did you mean {near}\\?.*year, month, pass"):
        parse_predicate(f"year == 1 or {name} == 1", NAMES)


@pytest.mark.parametrize(
    "repeated", ["(", "-", "+", "0", "not ", "year + ", "year // 2 // ", "[", "{", "range(", "1 < ", "9"]
)
@pytest.mark.parametrize("times", [501, 5_000, 100_000])
def test_no_length_and_no_nesting_exhausts_a_stack(repeated, times):
    for text in (repeated * times + "year", repeated * times + "1" + ")" * times + " == year"):
        with pytest.raises(InvalidInputError) as caught:
            parse_predicate(text, NAMES)
        assert len(str(caught.value)) < 600


def test_the_limits_are_named_when_they_are_exceeded():
    with pytest.raises(InvalidInputError, match="10,001 characters, more than 10,000"):
        parse_predicate("year == 1".ljust(MAX_LENGTH + 1, "0"), NAMES)
    with pytest.raises(InvalidInputError, match="501 comparisons, more than 500; 'in' takes long lists"):
        parse_predicate(" or ".join(["year == 1"] * (MAX_COMPARISONS + 1)), NAMES)
    with pytest.raises(InvalidInputError, match="more than 32 levels deep"):
        parse_predicate("not " * MAX_DEPTH + "year == 1", NAMES)
    with pytest.raises(InvalidInputError, match="a // counts as 8"):
        parse_predicate("year // 2 // 2 // 2 // 2 == 1", NAMES)


@pytest.mark.parametrize(
    "text",
    [
        " or ".join(["pass == 1"] * MAX_COMPARISONS),
        "pass " + "< 1 " * MAX_COMPARISONS,
        " or ".join(["-pass//2//3//5 in range(1,9,2)"] * 290),
        "not " * (MAX_DEPTH - 3) + "year == 1",
        "(" * 28 + "year == 1" + ") or month == 1) and month == 2" * 14,
        " + ".join(["pass"] * 28) + " == 28",
        f"pass in ({','.join('1' * 4900)})",
        f"pass in ({','.join(map(str, range(1, 2000)))})",
    ],
)
def test_the_largest_filters_run(connection, text):
    predicate = parse_predicate(text, NAMES)
    rows = [(0, 0, 0), (1, 1, 1), (1, 2, -40)]
    assert selected_by_sql(connection, predicate, rows) == selected_by_evaluate(predicate, rows)


def test_a_predicate_is_a_value():
    predicate, same = (parse_predicate("pass // 3 in (1, 2) or -pass in range(9)", NAMES) for _ in range(2))
    assert predicate == same
    assert hash(predicate) == hash(same)
    assert pickle.loads(pickle.dumps(predicate)) == predicate
    assert predicate != parse_predicate("pass // 3 in (1, 2) or -pass in range(8)", NAMES)
    assert predicate.text == "pass // 3 in (1, 2) or -pass in range(9)"
    assert repr(predicate) == "Predicate(text='pass // 3 in (1, 2) or -pass in range(9)')"


def test_a_large_range_is_searched_without_being_listed():
    predicate = parse_predicate(f"pass in range(0, {TOP}, 3)", NAMES)
    assert predicate.evaluate({"pass": 3 * 10**18})
    assert not predicate.evaluate({"pass": 3 * 10**18 + 1})


# SQL


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("year == 2022 and month not in (2, 1)", "k0 = 2022 AND (k1 NOT IN (1, 2))"),
        ("pass in range(1, 300)", "k2 BETWEEN 1 AND 299"),
        ("pass in range(299, 0, -2)", "k2 BETWEEN 1 AND 299 AND k2 % 2 IN (-1, 1)"),
        ("pass in range(9, 3)", "false"),
        ("pass in range(9, 1, -5)", "k2 IN (4, 9)"),
        ("pass % 3 == 1", "(k2 % 3 + 3) % 3 = 1"),
        ("pass // 3 == 1", "k2 / 3 - CASE WHEN (k2 % 3 < 0) THEN 1 ELSE 0 END = 1"),
        (
            "year*100 + month > 202203",
            "CASE WHEN (k0 BETWEEN -72057594037927935 AND 72057594037927935 AND "
            "k1 BETWEEN -72057594037927935 AND 72057594037927935) THEN k0 * 100 + k1 > 202203 ELSE false END",
        ),
    ],
)
def test_a_filter_is_short_in_sql(text, expected):
    assert sql(text, postgresql.dialect()).replace("%%", "%") == expected


def test_numbers_are_bound_and_have_64_bits_on_postgres():
    clause = compile_predicate(parse_predicate("pass % 3 == 1 or year in (1, 2)", NAMES), COLUMNS)
    compiled = clause.compile(dialect=postgresql.psycopg.dialect(), compile_kwargs={"render_postcompile": True})
    assert str(compiled).count("::BIGINT") == len(compiled.params) == 6
    assert sql("pass % 3 == 1", sqlite.dialect()) == "(k2 % 3 + 3) % 3 = 1"


EDGES = [0, 1, 2, 3, 7, 2**24 - 1, 2**31, 2**53 + 1, 2**62 - 1, 2**62, TOP - 1, TOP]
EDGES = sorted({*EDGES, *(-edge for edge in EDGES), -TOP - 1})


@pytest.mark.parametrize("sign", ["//", "%"])
@pytest.mark.parametrize("divisor", [1, 2, 7, 2**31 + 1, 2**62 - 1, -1, -2, -7, -(2**31) - 1, 1 - 2**62])
def test_division_rounds_down_for_all_64_bits(connection, sign, divisor):
    # -2**63 // -1 has more than 64 bits; quotients by 1 and -1 are guarded against it, and wider than they need.
    rows = [(edge, 0, 0) for edge in EDGES if (sign, abs(divisor)) != ("//", 1) or abs(edge) < 2**62]
    results = [edge // divisor if sign == "//" else edge % divisor for edge, _, _ in rows]
    for result in set(results):
        predicate = parse_predicate(f"year {sign} {divisor} == {result}", NAMES)
        expected = [row for row, outcome in zip(rows, results, strict=True) if outcome == result]
        assert selected_by_evaluate(predicate, rows) == expected
        assert selected_by_sql(connection, predicate, rows) == expected


# Agreement

literals = st.integers(-12, 12) | st.integers(-(10**4), 10**4)
divisors = literals.filter(bool)
ranges = st.builds("range({}, {}, {})".format, literals, literals, divisors) | st.builds("range({})".format, literals)
tuples = st.lists(literals, max_size=4).map(lambda values: f"({''.join(f'{value}, ' for value in values)})")


def _compute(numbers: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return (
        st.builds("{} {} {}".format, numbers, st.sampled_from(["+", "-", "*"]), numbers)
        | st.builds("{} {} {}".format, numbers, st.sampled_from(["//", "%"]), divisors)
        | st.builds("{}({})".format, st.sampled_from(["", "-", "+"]), numbers)
    )


def _combine(conditions: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return (
        st.builds("{} {} {}".format, conditions, st.sampled_from(["and", "or"]), conditions)
        | st.builds("not {}".format, conditions)
        | st.builds("({})".format, conditions)
    )


# Parentheses are left out on purpose: what a text means then is for Python's grammar to say.
numbers = st.recursive(st.sampled_from(NAMES) | literals.map(str), _compute, max_leaves=5)
links = st.builds(" {} {}".format, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), numbers)
members = st.builds(" {} {}".format, st.sampled_from(["in", "not in"]), tuples | ranges)
chains = st.lists(links, min_size=1, max_size=3).map("".join) | members | st.builds("{}{}".format, links, members)
texts = st.recursive(st.builds("{}{}".format, numbers, chains), _combine, max_leaves=4)

small_integers = st.integers(-15, 15) | st.integers(1 - 2**24, 2**24 - 1)
all_integers = small_integers | st.integers(-TOP - 1, TOP) | st.sampled_from(EDGES)


def parse_or_skip(text):
    try:
        return parse_predicate(text, NAMES)
    except InvalidInputError as error:
        assume("64 bits" not in str(error) and "levels deep" not in str(error))
        raise


@settings(max_examples=scaled(200), deadline=None)
@given(texts, st.lists(st.tuples(small_integers, small_integers, small_integers), min_size=1, max_size=8))
@example("pass % -3 == -2 and year // -3 == -3", [(7, 0, -5), (-7, 0, 7)])
def test_evaluate_agrees_with_python(text, rows):
    predicate = parse_or_skip(text)
    code = compile(text.replace("pass", "pass_"), "filter", "eval")
    expected = [row for row in rows if eval(code, dict(zip(("year", "month", "pass_"), row, strict=True)))]
    assert selected_by_evaluate(predicate, rows) == sorted(expected)


@settings(max_examples=scaled(200), deadline=None)
@given(texts, st.lists(st.tuples(all_integers, all_integers, all_integers), min_size=1, max_size=8))
@example("year * 100 + month > 0", [(2**60, 0, 0), (-(2**60), 0, 0), (2**56 - 1, 1, 0), (2**56, 1, 0)])
@example("year // 3 * 3 < year", [(-TOP - 1, 0, 0), (-TOP, 0, 0), (-1, 0, 0)])
@example("not -year >= 0", [(-TOP - 1, 0, 0), (-TOP, 0, 0)])
def test_sql_agrees_with_evaluate_for_all_64_bits(connection, text, rows):
    predicate = parse_or_skip(text)
    assert selected_by_sql(connection, predicate, rows) == selected_by_evaluate(predicate, rows)


@pytest.mark.parametrize(
    "rest", ["== 5", "!= 5", "< 5", "<= 5", "> 5", ">= 5", "in (5,)", "not in (5,)", "in range(9)"]
)
def test_a_comparison_is_false_where_a_key_is_too_large_to_compute_with(connection, rest):
    rows = [(2**56, 0, 0), (-(2**56), 0, 0), (0, 2**56, 0), (0, -TOP - 1, 0)]
    for text, expected in ((f"year * 100 + month {rest}", []), (f"not year * 100 + month {rest}", rows)):
        predicate = parse_predicate(text, NAMES)
        assert selected_by_evaluate(predicate, rows) == sorted(expected)
        assert selected_by_sql(connection, predicate, rows) == sorted(expected)


def test_numpy_integers_do_not_wrap_around():
    assert parse_predicate("pass * 100 == 10_000", NAMES).evaluate({"pass": np.int8(100)})  # type: ignore[dict-item]  # numbers of numpy do too
