import json

import numpy as np
import pytest
from small_disk import small_disk

from cxr import training_run


def epochs_in(path):
    return [record["epoch"] for record in training_run.read_records(path)]


def written(path, *epochs):
    for epoch in epochs:
        training_run.append_record(path, {"epoch": epoch, "val_auc": epoch / 10})
    return path


def test_records_come_back_in_order_one_json_object_a_line(tmp_path):
    path = written(tmp_path / "new" / "metrics.jsonl", 1, 2, 3)
    assert training_run.read_records(path) == [{"epoch": epoch, "val_auc": epoch / 10} for epoch in (1, 2, 3)]
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [1, 2, 3]


def test_a_last_line_cut_at_any_place_is_left_out(tmp_path):
    path = written(tmp_path / "metrics.jsonl", 1, 2)
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole)):
        path.write_bytes(whole[:length])
        assert epochs_in(path) == [1]
    path.write_bytes(whole)
    assert epochs_in(path) == [1, 2]


def test_after_a_cut_line_a_resumed_run_writes_what_one_that_never_stopped_writes(tmp_path):
    whole, cut = written(tmp_path / "whole", 1, 2, 3), written(tmp_path / "cut", 1, 2)
    cut.write_bytes(cut.read_bytes()[:-5])
    training_run.drop_epochs_after(cut, 1)
    written(cut, 2, 3)
    assert cut.read_bytes() == whole.read_bytes()


def test_epochs_that_the_checkpoint_does_not_know_are_dropped(tmp_path):
    path = written(tmp_path / "metrics.jsonl", 1, 2, 3)
    training_run.drop_epochs_after(path, 3)
    assert epochs_in(path) == [1, 2, 3]
    training_run.drop_epochs_after(path, 2)
    assert epochs_in(path) == [1, 2]
    training_run.drop_epochs_after(path, 0)
    assert path.read_bytes() == b""
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_run_from_the_start_does_not_stumble_over_an_older_log(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("of another program\n")
    training_run.drop_epochs_after(path, 0)
    assert training_run.read_records(path) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float64("-inf")])
def test_what_json_does_not_have_is_refused_by_name_and_nothing_is_written(tmp_path, value):
    with pytest.raises(ValueError, match=r"epoch 4: no finite number for val_auc$"):
        training_run.append_record(tmp_path / "metrics.jsonl", {"epoch": 4, "val_auc": value, "loss": 0.1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        training_run.append_record(tmp_path / "metrics.jsonl", {"epoch": 4, "deep": [float(value)]})
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{'epoch': 1}", r"metrics\.jsonl, line 2: not JSON .*; correct or remove the line"),
        (b"[1, 2]", r"metrics\.jsonl, line 2: expected an object"),
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path, line, message):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"epoch": 1}\n' + line + b'\n{"epoch": 3}\n')
    with pytest.raises(ValueError, match=message):
        training_run.read_records(path)
    with pytest.raises(ValueError, match=message):
        training_run.drop_epochs_after(path, 2)


def test_a_full_disk_is_told_with_the_file_and_what_stands_there_stays_readable(tmp_path):
    with small_disk(tmp_path, 64) as disk:
        path = written(disk / "metrics.jsonl", 1, 2)
        with pytest.raises(
            OSError, match=r"cannot write .*metrics\.jsonl: No space left on device; 1\.0 MiB are needed"
        ) as caught:
            training_run.append_record(path, {"epoch": 3, "text": "x" * 2**20})
        assert str(path) in str(caught.value)
        assert epochs_in(path) == [1, 2]
