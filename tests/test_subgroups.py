import numpy as np
import pytest

from cxr.patients import header_columns, subgroups
from cxr.reading import Header


def counts(columns):
    return {name: rows.tolist() for name, rows in subgroups(columns).items()}


def test_each_value_of_a_column_is_a_group_and_so_is_what_is_unknown():
    assert counts({"site": ["B", "A", "", "B "], "year": ["2020", "9", "2020", "9"]}) == {
        "site A": [1],
        "site B": [0, 3],
        "site unknown": [2],
        "year 9": [1, 3],
        "year 2020": [0, 2],
    }


def test_ages_are_divided_into_bands():
    found = counts({"Age": ["17", "18", "39.9", "40", "64", "65", "101", ""]})
    assert found == {
        "Age under 18": [0],
        "Age 18 to 39": [1, 2],
        "Age 40 to 64": [3, 4],
        "Age 65 and over": [5, 6],
        "Age unknown": [7],
    }


def test_many_numbers_are_divided_into_quarters_of_about_the_same_size():
    found = subgroups({"kVp": [str(number) for number in range(60, 100)]})
    assert list(found) == [
        "kVp under 69.75",
        "kVp 69.75 to under 79.5",
        "kVp 79.5 to under 89.25",
        "kVp 89.25 and over",
    ]
    assert [len(rows) for rows in found.values()] == [10] * 4 and len(
        np.unique(np.concatenate([*found.values()]))
    ) == 40


def test_a_column_that_divides_nothing_gives_no_group():
    assert counts({"sex": ["F", "F"], "view": ["", ""]}) == {}


def test_a_column_of_many_texts_is_left_out_with_a_warning():
    with pytest.warns(UserWarning, match=r"^no results for each value of accession: more than 12 different ones$"):
        assert counts({"accession": [f"A{number}" for number in range(13)], "sex": ["F", "M"] * 6 + ["F"]}).keys() == {
            "sex F",
            "sex M",
        }


def test_headers_tell_view_sex_and_age():
    headers = [Header(71, "F", "AP"), Header(), Header(5, "M", None)]
    assert header_columns(headers) == {"view": ["AP", "", ""], "sex": ["F", "", "M"], "age": ["71", "", "5"]}
    assert list(counts(header_columns(headers)))[-3:] == ["age under 18", "age 65 and over", "age unknown"]
