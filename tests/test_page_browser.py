"""The worklist's page in a real browser without network."""

import shutil

import pytest
from tiny_worklist import box, exam, written

from reading_room.texts import TEXTS

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
WIDE = (1600, 1000)

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium with its driver is installed"),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--lang=en",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def show(browser, tmp_path):
    """Opens a page of exams; after the test the console must be empty."""

    def opened(exams, **made):
        metrics = {"width": WIDE[0], "height": WIDE[1], "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.get(written(tmp_path, exams, **made).as_uri())
        return browser

    yield opened
    browser.execute_script("sessionStorage.clear()")
    assert browser.get_log("browser") == []


def mixed():
    """Twelve exams of every kind, numbered by urgency, and a file without a prediction."""
    kinds = [
        {"boxes": (box(0.9), box(0.7)), "highest_score": 0.9},
        {"boxes": (box(0.6),), "highest_score": 0.6},
        {},
        {"out_of_distribution": True},
        {"acquired": "", "view": ""},
        {"is_study_date": True},
    ]
    exams = [exam(number, **{"out_of_distribution": False} | kinds[number % 6]) for number in range(12)]
    return [*exams, exam(99, file="broken.dcm", error="is empty (0 bytes)")]


def script(browser, code, *arguments):
    return browser.execute_script(f"return {code}", *arguments)


def click(browser, selector):
    script(browser, "document.querySelector(arguments[0]).click()", selector)


def press(browser, *keys):
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def ranks(browser):
    """Of the visible exams, in their order."""
    code = "[...document.querySelectorAll('#exams tr')].filter((row) => !row.hidden).map((row) => Number(row.dataset.rank))"
    return script(browser, code)


def current(browser):
    return script(browser, "Number(document.querySelector('[aria-current=true]')?.dataset.rank ?? 0)")


def visibility(browser, selector):
    return script(browser, "getComputedStyle(document.querySelector(arguments[0])).visibility", selector)


def test_opens_from_disk_without_any_request(show):
    browser = show(mixed())
    assert script(browser, "location.protocol") == "file:"
    sources = script(browser, "performance.getEntriesByType('resource').map((entry) => entry.name.slice(0, 5))")
    assert set(sources) <= {"data:"}
    assert script(browser, "[...document.images].every((image) => image.naturalWidth > 0)")
    assert ranks(browser) == list(range(1, 13))


@pytest.mark.parametrize(
    ("column", "first", "then"),
    [
        ("rank", list(range(12, 0, -1)), list(range(1, 13))),  # it is sorted by rank when it opens
        ("boxes", [1, 7, 2, 8, 3, 4, 5, 6, 9, 10, 11, 12], [3, 4, 5, 6, 9, 10, 11, 12, 2, 8, 1, 7]),
        ("marks", [10, 4, 6, 7, 8, 9, 11, 12, 1, 2, 3, 5], [1, 2, 3, 5, 6, 7, 8, 9, 11, 12, 4, 10]),
        ("acquired", [12, 10, 9, 8, 7, 6, 4, 3, 2, 1, 5, 11], [1, 2, 3, 4, 6, 7, 8, 9, 10, 12, 5, 11]),
        ("view", [2, 4, 6, 8, 10, 12, 1, 3, 7, 9, 5, 11], [1, 3, 7, 9, 2, 4, 6, 8, 10, 12, 5, 11]),
    ],
)
def test_sorts_by_each_column_with_missing_values_last(show, column, first, then):
    browser = show(mixed())
    for expected in (first, then):
        click(browser, f"[data-sort={column}]")
        assert ranks(browser) == expected
    (order,) = script(browser, "[...document.querySelectorAll('th[aria-sort]')].map((header) => header.className)")
    assert order == column


def test_filters_by_group_and_by_text(show):
    browser = show(mixed())
    for group, left in (
        ("below", [11, 12]),
        ("borderline", list(range(6, 13))),
        ("ood", [4, 10]),
        ("all", [*range(1, 13)]),
    ):
        click(browser, f"[data-group={group}]")
        assert ranks(browser) == left
        assert script(browser, "document.querySelector('#shown').textContent") == f"{len(left)} of 12 exams shown"
    for words, left in (("exam-0003", [4]), ("2026-11-08", [8]), ("AP", [2, 4, 6, 8, 10, 12]), ("nowhere", [])):
        browser.find_element("id", "search").clear()
        browser.find_element("id", "search").send_keys(words)
        assert ranks(browser) == left


def test_the_large_view_shows_the_exam_with_its_boxes(show):
    browser = show(mixed())
    assert current(browser) == 1  # beside a wide list it is open from the start
    click(browser, "#exam-2")
    film = script(browser, "document.querySelector('#stage .picture').getBoundingClientRect().toJSON()")
    assert film["width"] > 400 and film["width"] / film["height"] == pytest.approx(1.2, abs=0.01)
    rectangle = script(browser, "document.querySelector('#stage rect').getBoundingClientRect().toJSON()")
    for side, whole, share in (("x", "width", 10 / 120), ("y", "height", 20 / 100)):  # where the box was found
        assert (rectangle[side] - film[side]) / film[whole] == pytest.approx(share, abs=0.01)
    assert rectangle["width"] / film["width"] == pytest.approx(30.5 / 120, abs=0.01)
    facts = browser.find_element("id", "facts").text
    for words in ("PNEUMONIA", "highest score 0.60", "2026-11-02", "120 x 100 pixels", "1.2.3.1", "exam-0001.dcm"):
        assert words in facts


def test_keys_move_enlarge_and_switch(show):
    from selenium.webdriver.common.keys import Keys

    browser = show(mixed())
    for key, expected in (
        ("ARROW_DOWN", 2),
        ("ARROW_UP", 1),
        ("ARROW_UP", 1),
        ("END", 12),
        ("ARROW_DOWN", 12),
        ("HOME", 1),
    ):
        press(browser, getattr(Keys, key))
        assert current(browser) == expected
        assert browser.find_element("id", "which").text.startswith(f"{expected} · ")
    full = "document.querySelector('#viewer').classList.contains('full')"
    press(browser, Keys.ENTER)
    assert script(browser, full)
    press(browser, Keys.ARROW_DOWN)
    assert current(browser) == 2
    press(browser, Keys.ESCAPE)
    assert not script(browser, full)
    assert script(browser, "document.activeElement.dataset.rank") == "2"
    press(browser, "b", "g")
    assert [visibility(browser, layer) for layer in ("#stage svg.boxes", "#stage .heat")] == ["hidden", "visible"]
    press(browser, "/")
    press(browser, "0003", Keys.ESCAPE)
    assert ranks(browser) == [4]


def test_everything_is_translated_to_korean(show):
    browser = show(mixed(), watched=True)
    click(browser, "[data-language=ko]")
    assert script(browser, "[document.documentElement.lang, document.title]") == ["ko", "워크리스트"]
    texts = script(browser, "[...document.querySelectorAll('[data-t]')].map((one) => [one.dataset.t, one.textContent])")
    for key, text in texts:
        assert "{" not in text and (text == TEXTS[key][1] or "{" in TEXTS[key][1]), key
    labels = script(
        browser, "[...document.querySelectorAll('[data-label]')].map((one) => [one.dataset.label, one.ariaLabel])"
    )
    assert all(text == TEXTS[key][1] for key, text in labels) and len(labels) > 15
    click(browser, "[data-language=en]")
    assert "연구용" not in browser.find_element("tag name", "body").text


def test_without_a_script_the_list_is_there(show, browser):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        show(mixed())
        text = browser.find_element("tag name", "body").text
        assert "exam-0011.dcm" in text and "Research only." in text
        assert not browser.find_element("id", "viewer").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
        browser.refresh()
