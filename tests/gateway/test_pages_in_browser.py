"""The search page in a real browser: typing, filters, keyboard, failures, a phone's width, accessibility.

Needs Chromium (Debian's `chromium`, or CHROMIUM=PATH) and requirements/browser.lock: `make browser-test`.
"""

import os
import re
import shutil
from contextlib import closing

import pytest
from search_index import searching_gateway

from querylife.catalog.sample_catalog import drawn_products
from querylife_client.testing import FakeTriton
from querylife_client.testing.faults import Delay
from querylife_gateway.labelling.labels import Labels, Pair

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make browser-test")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="found no chromium"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
PATIENCE_MS = 120_000
QUERIES = ("red dress", "blue jeans")


@pytest.fixture(scope="module")
def fake():
    with FakeTriton() as server:
        yield server


@pytest.fixture(scope="module")
def searching(fake, tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    with closing(Labels(folder / "labels.sqlite")) as labels:
        labels.add_pairs(Pair(query, product.id) for query in QUERIES for product in drawn_products()[:10])
    with searching_gateway(fake.address, folder, "--labels", str(folder / "labels.sqlite")) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as library:
        opened = library.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser, searching):
    """A page on which every script error fails the test."""
    context = browser.new_context(base_url=searching.url, viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    opened = context.new_page()
    errors = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    context.close()
    assert not errors


def first_title(page):
    return page.locator("li.product h2").first


def expect(locator):
    return playwright.expect(locator)


def test_results_come_while_one_types_and_the_address_keeps_them(page):
    page.goto("/")
    page.locator("#query").press_sequentially("leather belt", delay=20)
    expect(first_title(page)).to_contain_text("Belt", timeout=PATIENCE_MS)
    expect(page.locator("#status")).to_contain_text(" ms.", timeout=PATIENCE_MS)
    expect(page).to_have_url(re.compile(r"\?q=leather\+belt$"), timeout=PATIENCE_MS)
    page.reload()
    expect(first_title(page)).to_contain_text("Belt", timeout=PATIENCE_MS)
    assert page.evaluate("document.images.length") > 0


def test_a_typing_error_is_named_and_can_be_taken_at_its_word(page):
    page.goto("/?q=lether+belt")
    expect(page.locator("#status b")).to_have_text("leather belt", timeout=PATIENCE_MS)
    page.locator("#status button").click()
    expect(page.locator("#status b")).to_have_count(0, timeout=PATIENCE_MS)


def test_filters_hold_and_can_be_cleared(page):
    page.goto("/?q=red+dress")
    page.get_by_label("Belts").check()
    expect(page.locator("li.product")).to_have_count(6, timeout=PATIENCE_MS)
    page.get_by_label("Purple").check()
    expect(page.locator("#message")).to_contain_text("No product passes these filters", timeout=PATIENCE_MS)
    page.locator("#message").get_by_role("button", name="Clear filters").click()
    expect(page.locator("li.product")).to_have_count(48, timeout=PATIENCE_MS)


def test_the_keyboard_is_enough(page):
    page.goto("/?q=red+dress")
    expect(page.locator("li.product")).to_have_count(48, timeout=PATIENCE_MS)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("/")
    expect(page.locator("#query")).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(page.locator("li.product").nth(0)).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.locator("li.product").nth(1)).to_be_focused()
    page.keyboard.press("End")
    expect(page.locator("li.product").nth(47)).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#query")).to_be_focused()


def test_a_failure_is_told_and_can_be_tried_again(page):
    page.goto("/")
    page.route("**/v1/search", lambda route: route.fulfill(status=502, json={"error": {"message": "it broke"}}))
    page.locator("#query").fill("red dress")
    expect(page.locator("#message")).to_contain_text("it broke", timeout=PATIENCE_MS)
    page.unroute("**/v1/search")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("li.product")).to_have_count(48, timeout=PATIENCE_MS)


def test_a_slow_search_says_so(page, fake):
    page.goto("/")
    expect(page.locator("#message")).to_contain_text("For example", timeout=PATIENCE_MS)
    fake.script(Delay(3))
    page.locator("#query").fill("a query that nobody asked before")
    expect(page.locator("#status")).to_have_text("Still searching …", timeout=PATIENCE_MS)
    expect(page.locator("#status")).to_contain_text(" ms.", timeout=PATIENCE_MS)


def test_judging_by_keyboard_survives_a_gateway_that_is_away(page, searching):
    page.goto("/label")
    page.locator("#rater").fill("eve")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("0 judged by you, 20 pairs", timeout=PATIENCE_MS)
    page.keyboard.press("3")
    expect(page.locator("#status")).to_contain_text("1 judged by you", timeout=PATIENCE_MS)
    page.route("**/v1/label/*", lambda route: route.abort())
    page.keyboard.press("0")
    expect(page.locator("#status")).to_contain_text("1 judgement is kept here", timeout=PATIENCE_MS)
    page.unroute("**/v1/label/*")
    page.reload()
    expect(page.locator("#status")).to_contain_text("2 judged by you", timeout=PATIENCE_MS)


def test_a_phone_shows_two_columns_and_nothing_sticks_out(page):
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto("/?q=red+dress")
    expect(page.locator("li.product")).to_have_count(48, timeout=PATIENCE_MS)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    lefts = page.evaluate("[...document.querySelectorAll('li.product')].slice(0, 4).map((e) => e.offsetLeft)")
    assert lefts[0] == lefts[2] < lefts[1] == lefts[3]


@pytest.mark.parametrize("path", ["/", "/?q=red+dress", "/compare?q=red+dress", "/label"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(page, path, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    page.emulate_media(color_scheme=scheme)
    page.goto(path)
    if path == "/label":
        page.locator("#rater").fill("ann")
        page.keyboard.press("Enter")
        expect(page.locator("#pair h2")).not_to_be_empty(timeout=PATIENCE_MS)
    else:
        expect(page.locator("#status")).to_contain_text(
            " ms." if path == "/?q=red+dress" else "products", timeout=PATIENCE_MS
        )
    results = axe.Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
