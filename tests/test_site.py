"""The site of the documents: it builds without a warning, loads nothing from the network, and its search works from a file."""

from __future__ import annotations

import logging
import os
import re
import shutil
from pathlib import Path

import pytest

pytest.importorskip("material")
pytest.importorskip("mkdocstrings")

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.exhaustive


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built from the tree."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    place = tmp_path_factory.mktemp("site")
    logger, before = logging.getLogger("mkdocs"), Path.cwd()
    level = logger.level
    os.chdir(ROOT)
    try:
        config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(place), strict=True)
        config.plugins.on_startup(command="build", dirty=False)
        build(config)
        config.plugins.on_shutdown()
    finally:
        os.chdir(before)
        logger.setLevel(level)
    return place


def test_it_builds_without_a_warning_and_has_all_pages(site):
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    assert {f"{path.stem}.html" for path in (ROOT / "docs").glob("*.md")} <= pages
    assert "repository/leaderboard/index.html" in pages


def test_it_loads_nothing_from_the_network(site):
    loading = re.compile(r"<(?:(?:script|img|iframe|source)\b[^>]*\bsrc|link\b[^>]*\bhref)=[\"']?(?:https?:)?//[^>]*")
    for page in site.rglob("*.html"):
        assert not loading.findall(page.read_text(encoding="utf-8")), page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"""url\(["']?(?:https?:)?//|@import""", sheet.read_text(encoding="utf-8")), sheet
    picture = (ROOT / "docs" / "picture.svg").read_text(encoding="utf-8")
    assert not re.search(r"url\((?!#)|href|@import", picture)


def test_the_reference_has_what_import_kdbench_offers(site):
    import kdbench

    text = (site / "reference" / "api.html").read_text(encoding="utf-8")
    for name in kdbench.__all__:
        assert f"kdbench.{name}" in text or f"kdbench.errors.{name}" in text


@pytest.mark.browser
def test_the_search_works_from_a_file(site):
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        if os.environ.get("KDBENCH_REQUIRE_BROWSER"):
            pytest.fail("needs chromium and chromedriver")
        pytest.skip("needs chromium and chromedriver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--window-size=1280,900",
    ):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        for page in ("index.html", "reference/api.html"):
            browser.get((site / page).as_uri())
            field = browser.find_element("css selector", ".md-search__input")
            field.click()
            field.send_keys("calibration")
            links = WebDriverWait(browser, 60).until(_results)
            assert any("measures.html" in link for link in links)
            loaded = browser.execute_script("return performance.getEntriesByType('resource').map((each) => each.name)")
            assert all(address.startswith(("file:", "data:", "blob:")) for address in loaded)
    finally:
        browser.quit()


def _results(browser):
    """Addresses of the pages that the search has come up with."""
    return browser.execute_script(
        "return [...document.querySelectorAll('.md-search-result__link')].map((each) => each.href)"
    )
