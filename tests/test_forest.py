from cxr.plots import forest_plot


def score(value, low=None, high=None):
    return {"value": value, "low": low, "high": high}


def test_each_row_shows_its_value_and_interval_or_that_there_is_none(figures, tmp_path):
    rows = {
        "all (40)": {"auc": score(0.9, 0.8, 0.95), "sensitivity": score(0.7, 0.6, 0.8)},
        "site A (30)": {"auc": score(0.95, 0.9, 0.99), "sensitivity": score(1.0)},
        "site B (10)": {"auc": score(None), "sensitivity": score(0.5, 0.2, 0.7)},
    }
    forest_plot(rows, {"auc": "ROC AUC", "sensitivity": "sensitivity"}, tmp_path / "forest.png", title="40 images")
    left, right = figures[0].axes
    assert [label.get_text() for label in left.get_yticklabels()] == list(rows)
    assert [text.get_text() for text in left.texts] == ["0.900", "0.950", "undefined"]
    assert [text.get_text() for text in right.texts] == ["0.700", "1.000", "0.500"]
    assert [0.9, 0.9] in [list(line.get_xdata()) for line in left.lines]  # all images, dotted through every row
    assert [0.2, 0.7] in [list(line.get_xdata()) for line in right.lines]
    assert left.get_ylim() == (2.5, -0.5)  # all images on top
