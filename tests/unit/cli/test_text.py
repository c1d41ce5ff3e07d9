"""Text that is safe to print and fits."""

from hypothesis import given
from hypothesis import strategies as st

from weft.cli.text import columns, duration, neutral


@given(st.text())
def test_nothing_that_a_terminal_obeys_comes_through(text: str) -> None:
    shown = neutral(text)
    assert not any(ord(c) < 32 or 0x7F <= ord(c) <= 0x9F for c in shown)
    assert not set(shown) & set("\u2028\u2029\u202e\u2066\u200f\ufeff")


def test_escapes_are_written_out_and_letters_of_any_language_stay() -> None:
    assert neutral("a\x1b[31mb") == "a\\x1b[31mb"
    assert neutral("naïve 網") == "naïve 網"


def test_columns_line_up_and_empty_cells_show() -> None:
    lines = columns(("name", "status"), [("web", "done"), ("api-server", "")], width=None)
    assert lines == ["NAME         STATUS", "web          done", "api-server   -"]


def test_the_last_column_gives_way_in_a_narrow_terminal() -> None:
    lines = columns(("name", "status"), [("web", "x" * 100)], width=30)
    assert [len(line) for line in lines] == [13, 30]
    assert lines[1].endswith("…")


def test_a_listing_without_rows_still_has_its_titles() -> None:
    assert columns(("name",), [], width=80) == ["NAME"]


def test_ages_show_their_two_largest_units() -> None:
    ages = {0.4: "0s", 59: "59s", 61: "1m1s", 3600: "1h0m", 90_000: "1d1h"}
    assert {seconds: duration(seconds) for seconds in ages} == ages
