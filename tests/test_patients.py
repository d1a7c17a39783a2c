import hashlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr.patients import split, subgroups, with_header_columns
from cxr.reading import Header

# (patient, label, content) of each image, where a patient may have several labels and a content several patients
drawn_images = st.lists(
    st.tuples(st.integers(0, 40).map("person{}".format), st.sampled_from("NP"), st.integers(0, 60).map(str)),
    min_size=20,
    max_size=120,
)
drawn_shares = st.sampled_from([{"validation": 0.12}, {"validation": 0.5}, {"held_out": 0.1, "validation": 0.25}])


def divided(images, shares, seed=0, needed=()):
    return split(*zip(*images, strict=True), shares, seed, needed=needed)


def distinct(pairs):
    return [(*pair, str(number)) for number, pair in enumerate(pairs)]


@settings(deadline=None)
@given(drawn_images, drawn_shares, st.integers(0, 5))
def test_parts_are_complete_and_share_no_patient_and_no_content(images, shares, seed):
    parts = divided(images, shares, seed)
    assert [*parts] == ["train", *shares]
    assert sorted(np.concatenate([*parts.values()])) == list(range(len(images)))
    part_of = {index: name for name, part in parts.items() for index in part.tolist()}
    for column in (0, 2):
        places = {(images[index][column], name) for index, name in part_of.items()}
        assert len(places) == len({value for value, _ in places})


@settings(deadline=None)
@given(drawn_images, drawn_shares, st.integers(0, 5), st.randoms(use_true_random=False))
def test_a_split_does_not_depend_on_the_order_of_listing(images, shares, seed, chance):
    order = list(range(len(images)))
    chance.shuffle(order)
    parts, shuffled = divided(images, shares, seed), divided([images[index] for index in order], shares, seed)
    for name, part in parts.items():
        assert sorted(order[index] for index in shuffled[name]) == part.tolist()


@settings(deadline=None, max_examples=30)
@given(drawn_shares, st.integers(0, 3), st.data())
def test_each_label_gives_its_share_within_half_a_patient(shares, seed, data):
    sizes = data.draw(st.lists(st.integers(1, 6), min_size=80, max_size=80))
    images = distinct((f"person{n}", "NP"[n % 2]) for n, size in enumerate(sizes) for _ in range(size))
    totals = Counter(label for _, label, _ in images)
    parts = divided(images, shares, seed)
    for name, share in shares.items():
        found = Counter(images[index][1] for index in parts[name])
        for label, total in totals.items():
            # Half of the largest patient too many, or what no patient left over was small enough for.
            assert share * total - 3.5 < found[label] <= share * total + 3


def test_a_split_is_the_same_on_every_machine_and_another_for_another_seed():
    images = distinct((f"person{n}", "NP"[n % 2]) for n in range(400))
    shares = {"held_out": 0.1, "validation": 0.12}
    chosen = [divided(images, shares, seed) for seed in (0, 0, 1)]
    assert all(np.array_equal(chosen[0][name], chosen[1][name]) for name in chosen[0])
    assert not np.array_equal(chosen[0]["validation"], chosen[2]["validation"])
    # Worked from the rule itself: patients in the order of sha256("seed/name"), until a label has its share.
    by_digest = sorted(range(400), key=lambda n: hashlib.sha256(f"0/person{n}".encode()).digest())
    of_label = [[n for n in by_digest if n % 2 == label] for label in (0, 1)]
    assert chosen[0]["held_out"].tolist() == sorted(of_label[0][:20] + of_label[1][:20])
    assert chosen[0]["validation"].tolist() == sorted(of_label[0][20:44] + of_label[1][20:44])


def test_patients_who_share_a_file_through_others_stay_together():
    images = distinct((f"person{n}", "NP"[n % 2]) for n in range(60))
    images += [("person0", "N", "shared"), ("person1", "P", "shared")]
    images += [("person1", "P", "also"), ("person2", "N", "also")]
    tied = [0, 1, 2, 60, 61, 62, 63]
    sides = [{*np.isin(tied, divided(images, {"validation": 0.3}, seed)["validation"]).tolist()} for seed in range(30)]
    assert all(len(side) == 1 for side in sides)
    assert {True} in sides and {False} in sides  # they were not just always left in training


@pytest.mark.parametrize(
    ("pairs", "missing"),
    [
        ([("a", "N"), ("b", "N"), ("c", "P"), ("d", "P")], "N image is left for validation"),  # a fifth of two is none
        ([("a", "N"), ("b", "P"), *[("c", "P")] * 8], "N image is left for validation"),
        ([(f"a{n}", "N") for n in range(20)], "P image is left for train"),
        ([*[("a", "N")] * 9, *[("b", "P")] * 9], "N image is left for validation"),  # one patient cannot be divided
    ],
)
def test_a_split_that_would_lack_a_label_is_refused(pairs, missing):
    message = rf"^no {missing}: {len(pairs)} images of \d+ patients are too few for a split with 20% for validation$"
    with pytest.raises(ValueError, match=message):
        divided(distinct(pairs), {"validation": 0.2}, needed="NP")
    assert divided(distinct(pairs), {"validation": 0.2})  # nothing is needed, nothing is missed


# --------------------------------------------------------------------------------------------------------- subgroups


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


def test_view_sex_and_age_of_headers_are_columns_where_the_table_has_none_of_that_name():
    headers = [Header(71, "F", "AP"), Header(), Header(5, "M", None)]
    columns = with_header_columns({}, headers)
    assert columns == {"view": ["AP", "", ""], "sex": ["F", "", "M"], "age": ["71", "", "5"]}
    assert [*with_header_columns({"Sex": ["w", "w", "m"]}, headers)] == ["Sex", "view", "age"]
    assert list(counts(columns))[-3:] == ["age under 18", "age 65 and over", "age unknown"]
