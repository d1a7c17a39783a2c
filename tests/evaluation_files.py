"""What the tests of both evaluations write and read."""

import csv


def lines_of(path):
    """The rows of a CSV by column."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def without_progress(text):
    """What is left on a terminal once progress bars have wiped themselves away."""
    return text.split("\r")[-1]


def write_table(path, rows):
    """``path``, now a CSV of ``rows``, which name their columns alike."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path
