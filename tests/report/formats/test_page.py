"""The page of the leaderboard: its bytes, and what it does in a browser."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from kdbench.cli.main import main
from kdbench.errors import UserError
from kdbench.report.leaderboard import PAGE, check, regenerate
from kdbench.report.request import Request
from kdbench.report.tables.axes import Axes

HOSTILE = "<img src=x onerror=alert(1)></script><!--"
CURVE = "epoch,images,seconds,lr,accuracy.val,loss\n" + "".join(
    f"{i},{i},1,0.1,{40 + i / 10},2\n" for i in range(1, 241)
)


@pytest.fixture
def runs(result, store):
    """Two tables: of one, the shown means would sort otherwise than the exact ones; in the other, names that attack."""
    taught = {"best_epoch": 3, "provenance__commit": "a" * 40}
    ce = [result("ce", seed, 9.5 + seed / 10, **taught) for seed in range(3)]
    kd = [result("kd", seed, 52.001 + seed, taught=True, **taught) for seed in range(3)]
    at = [result("at", seed, 52.003 + seed, **taught) for seed in range(3)]
    failed = result("rkd", 0, None, status="failed", error="boom")
    names = {"dataset": HOSTILE, "recipe": f'"{HOSTILE}', "method__parameters": json.dumps({"a.b": HOSTILE})}
    hostile = result(HOSTILE, 0, 50.0, run="hostile", teacher=HOSTILE, provenance__command=HOSTILE, **names)
    folder = store(*ce, *kd, *at, failed, hostile)
    for one in (*kd, hostile):
        (folder / one["run"] / "epochs.csv").write_text(CURVE)
    return folder


@pytest.fixture
def page(runs, tmp_path):
    regenerate(runs, tmp_path / "out", html=True)
    return tmp_path / "out" / PAGE


LIBRARY = re.compile(r'<script type="module">.*?</script>', re.DOTALL)


def embedded(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())[1])


def own(page):
    """Its text without DataTables."""
    return LIBRARY.sub("", page.read_text(), count=1)


def test_same_rows_same_bytes(runs, page, tmp_path):
    before = page.read_bytes()
    assert regenerate(runs, tmp_path / "out", html=True).changed == []
    regenerate(runs, tmp_path / "other", html=True)
    assert (tmp_path / "other" / PAGE).read_bytes() == before


def test_it_loads_nothing_and_its_policy_forbids_it(page):
    text = own(page)
    assert "default-src &#39;none&#39;" in text
    assert "unsafe" not in text
    assert not re.search(r"<(link|img|iframe|object|embed)\b|\ssrc=[\"']|@import|url\(", text.replace(HOSTILE, ""))
    addresses = set(re.findall(r"https?://[^\s\"'<]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}, "a namespace is a name, and is not loaded"


def test_no_name_becomes_markup(page):
    text = page.read_text()
    assert "<img" not in text
    assert "<!--" not in text
    assert len(re.findall("<script", text)) == len(re.findall("</script", text)) == 3
    assert embedded(page)["rows"][0]["runs"][0]["command"] == HOSTILE


def test_values_of_nine_digits_beside_the_shown_ones(page):
    # 53.001 and 53.003 are shown alike.
    assert set(re.findall(r'data-order="(53[^"]*)">53.00 ', page.read_text())) == {
        "53.001",
        repr(float(f"{(52.003 + 53.003 + 54.003) / 3:.9g}")),
    }


def test_curves_are_thinned_and_keep_their_ends(page):
    data = embedded(page)
    (images,) = data["images"]
    assert (len(images), images[0], images[-1]) == (100, 1, 240)
    curves = [run["curve"] for line in data["rows"] for run in line["runs"] if "curve" in run]
    assert len(curves) == 4
    assert {(len(curve), curve[0], curve[1], curve[-1]) for curve in curves} == {(101, 0, 4010, 6400)}


@pytest.mark.parametrize(
    "content", [None, b"", b"\xff\xfe", b"epoch,loss\n1,2\n", b"images,seconds,accuracy.val\n9,1,nan\n9,1,\n", b"a\0"]
)
def test_without_usable_curves(content, runs, tmp_path):
    for path in runs.glob("*/epochs.csv"):
        path.unlink() if content is None else path.write_bytes(content)
    regenerate(runs, tmp_path / "out", html=True)
    data = embedded(tmp_path / "out" / PAGE)
    assert data["images"] == []
    assert sum(len(line["runs"]) for line in data["rows"]) == 11


def test_no_runs_at_all(tmp_path):
    regenerate(tmp_path / "none", tmp_path / "out", html=True)
    assert "There are no results yet" in (tmp_path / "out" / PAGE).read_text()


def test_columns_that_were_asked_for(runs, tmp_path):
    regenerate(runs, tmp_path / "out", Request(("delta", "ece")), html=True)
    heads = re.findall(r"<button type=\"button\" title=\"[^\"]*\">([^<]*)<", own(tmp_path / "out" / PAGE))
    assert heads[-4:] == ["Teacher", "n", "Δ ce", "ECE %"]


def test_grids_of_the_leaderboard_are_on_it(runs, tmp_path):
    regenerate(runs, tmp_path / "out", Request(axes=Axes("method", "student")))
    regenerate(runs, tmp_path / "out", html=True)
    text = own(tmp_path / "out" / PAGE)
    assert "Method × student: digits" in text
    assert "53.00 ± 2.48" in text[text.index("Method × student: digits") :]


def test_check_leaves_it_alone(page, runs, tmp_path, capsys):
    page.write_text("anything")
    assert check(tmp_path / "out") == []
    assert main(["leaderboard", "--runs", str(runs), "--out", str(tmp_path / "out"), "columns=delta"]) == 0
    assert "is out of date; regenerate it with --html" in capsys.readouterr().err
    assert page.read_text() == "anything"


def test_command_line(runs, tmp_path, capsys):
    assert main(["leaderboard", "--html", "--runs", str(runs), "--out", str(tmp_path / "out")]) == 0
    assert PAGE in capsys.readouterr().out
    assert main(["leaderboard", "--html", "--check"]) == 2


@pytest.mark.parametrize("package", ["jinja2", "itables"])
def test_without_the_extra(package, runs, tmp_path):
    code = f"import sys; sys.modules['{package}'] = None; from kdbench.cli.main import main; sys.exit(main())"
    words = ["leaderboard", "--html", "--runs", str(runs), "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "kdbench: kdbench leaderboard --html needs Jinja2 and itables: pip install 'kdbench[page]'\n"
    assert not (tmp_path / "out").exists()


def test_another_itables(runs, tmp_path, monkeypatch):
    bundle = tmp_path / "site" / "itables" / "html" / "dt_bundle.js"
    bundle.parent.mkdir(parents=True)
    bundle.write_text("export{a as other};")
    (tmp_path / "site" / "itables" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(UserError, match="found no DataTables in this version of itables"):
        regenerate(runs, tmp_path / "out", html=True)
    assert not (tmp_path / "out").exists()


def test_the_library_is_there_with_its_licences_and_itables_is_not_imported(page, runs, tmp_path):
    (library,) = LIBRARY.findall(page.read_text())[:1]
    assert "DataTables 2" in library
    assert "datatables.net/license" in library
    assert "https://jquery.com/license/" in library
    code = "import sys; from kdbench.cli.main import main; main(); sys.exit('itables' in sys.modules)"
    words = ["leaderboard", "--html", "--runs", str(runs), "--out", str(tmp_path / "other")]
    assert subprocess.run([sys.executable, "-c", code, *words]).returncode == 0


@pytest.fixture
def board(result, store, tmp_path):
    """Two tables that share their methods, and published values of which one is compared."""
    where = {"student": "resnet20", "images_seen": 12_000_000}
    results = [
        result(method, seed, mean + seed, run=f"{dataset}{method}{seed}", dataset=dataset, **where)
        for dataset in ("cifar100", "cifar10")
        for method, mean in (("ce", 60), ("at", 70))
        for seed in range(3)
    ]
    out = tmp_path / "out"
    out.mkdir()
    (out / "published.csv").write_text(
        "source,dataset,teacher,student,method,top1,note,epochs,images,epoch\n"
        f"{HOSTILE},cifar100,,resnet20,ce,69.06,{HOSTILE},240,50000,best\n"
        "Other,cifar100,,resnet20,at,71,,2400,50000,last\n"
    )
    regenerate(store(*results), out, html=True)
    return out


def test_the_sections_of_the_readme_are_on_the_page(board):
    page, readme = board / PAGE, (board / "README.md").read_text()
    text = html.unescape(re.sub(r"</?(em|a)\b[^>]*>", "", own(page)))
    for heading in ("Over all tables", "Published against measured"):
        behind = readme.split(f"## {heading}\n\n")[1].split("\n## ")[0].split("\n---")[0]
        assert f">{heading}</h2>" in text
        for line in filter(None, behind.splitlines()):
            if set(line) <= set("|-: "):
                continue
            cells = line.strip("| ").split("|") if line.startswith("|") else [line.removeprefix("- ")]
            for cell in cells:
                shown = html.unescape(re.sub(r"\\(.)|\[([^]]*)\]\([^)]*\)|\*", r"\1\2", cell.strip()))
                about, _, rest = shown.partition("that is not known: ")
                assert (rest.removesuffix(".") or about) in text, cell
    assert '<a href="published.csv">published.csv</a>' in own(page)
    assert "<img" not in own(page)


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium."""
    lacking = [tool for tool in ("chromium", "chromedriver") if not shutil.which(tool)]
    if lacking:
        reason = f"needs {' and '.join(lacking)}"
        if os.environ.get("KDBENCH_REQUIRE_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    # Chromium's own sandbox does not start as root, and a container's /dev/shm may be small.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, page):
    """The page in the browser; at the end nothing may have gone wrong there, and nothing may have been fetched."""
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(page.as_uri())
    yield browser
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert set(sent) == {page.as_uri()}
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


def shown(browser, selector):
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].filter((e) => e.checkVisibility()).map((e) => e.textContent)",
        selector,
    )


def table(browser):
    """The second section: three methods with seeds, and one that failed."""
    return shown(browser, "section:nth-of-type(2) tbody .method")


def press(browser, element, *keys):
    browser.execute_script("arguments[0].focus()", element)
    element.send_keys(*keys)


def wait(browser, condition):
    """DataTables sorts after it has answered the key."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 20).until(lambda _: condition())


@pytest.mark.browser
def test_sort_by_keyboard(opened):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    def head(title):
        path = f"//section[2]//thead//button[normalize-space()='{title}']"
        return opened.find_element(By.XPATH, path)

    def sorted_by(keys, title, *methods):
        press(opened, head(title), *keys)
        wait(opened, lambda: table(opened) == list(methods))
        return head(title).find_element(By.XPATH, "ancestor::th").get_attribute("aria-sort")

    assert table(opened) == ["at", "kd", "ce", "rkd"], "by rank"
    assert sorted_by([Keys.SPACE], "Method", "at", "ce", "kd", "rkd") == "ascending"
    assert sorted_by([Keys.ENTER], "Accuracy %", "at", "kd", "ce", "rkd") == "descending"
    # 9.6 before 53.001 and 53.003, which are shown alike; what has none stays last.
    assert sorted_by([Keys.SPACE], "Accuracy %", "ce", "kd", "at", "rkd") == "ascending"
    assert sorted_by([Keys.ENTER], "Accuracy %", "at", "kd", "ce", "rkd") is None
    assert sorted_by([Keys.ENTER], "n", "rkd", "at", "kd", "ce") == "ascending"
    assert sorted_by([Keys.SHIFT, Keys.ENTER], "Method", "rkd", "at", "ce", "kd") is None, "the first of two tells"
    # Tab goes from head to head and on to the rows, and stops nowhere else.
    heads, focused = len(opened.find_elements(By.CSS_SELECTOR, "section:nth-of-type(2) thead button")), []
    press(opened, head("#"))
    for _ in range(heads + 1):
        focused.append(opened.switch_to.active_element.text)
        opened.switch_to.active_element.send_keys(Keys.TAB)
    assert [focused[0], focused[-1]] == ["#", "rkd"]
    outline = "return getComputedStyle(document.activeElement).outlineStyle"
    assert opened.execute_script(outline) == "solid"


@pytest.mark.browser
def test_filter(opened):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    search = opened.find_element(By.ID, "method")
    search.send_keys("KD")
    assert shown(opened, "tbody .method") == ["kd", "rkd"]
    assert opened.find_element(By.CSS_SELECTOR, "[role=status]").text == "2 rows in 1 table"
    search.clear()
    search.send_keys("onerror img")
    assert len(shown(opened, "tbody .method")) == 1, "the words in any order, and signs of HTML are letters like others"
    search.clear()
    Select(opened.find_element(By.ID, "dataset")).select_by_visible_text(HOSTILE)
    assert len(shown(opened, "section[data-dataset] h2")) == 1
    Select(opened.find_element(By.ID, "recipe")).select_by_visible_text("short")
    assert shown(opened, "section[data-dataset] h2") == []


@pytest.mark.browser
def test_a_row_opens_with_its_runs_and_curves(opened):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    button = opened.find_element(By.XPATH, "//section[2]//tbody//button[normalize-space()='kd']")
    press(opened, button, Keys.ENTER)
    assert button.get_attribute("aria-expanded") == "true"
    detail = opened.find_element(By.ID, button.get_attribute("aria-controls"))
    WebDriverWait(opened, 20).until(lambda _: len(detail.find_elements(By.CSS_SELECTOR, "svg polyline")) == 3)
    points = detail.find_element(By.CSS_SELECTOR, "polyline").get_attribute("points").split()
    assert len(points) == 100
    drawn = detail.find_element(By.CSS_SELECTOR, "svg")
    assert drawn.get_attribute("aria-label").startswith("Validation accuracy by images seen, up to 240. At the end: ")
    assert "200" in [text.text for text in drawn.find_elements(By.CSS_SELECTOR, "text")]
    assert shown(opened, ".detail pre") == ["kdbench run methods=kd"] * 3
    assert shown(opened, ".detail h3") == ["seed 0: 52.00 %", "seed 1: 53.00 %", "seed 2: 54.00 %"]
    assert shown(opened, ".detail .copy") == ["Copy command"] * 3
    press(opened, opened.find_element(By.CSS_SELECTOR, ".copy"), Keys.ENTER)
    WebDriverWait(opened, 20).until(lambda _: shown(opened, ".copy")[0] in ("Copied", "Selected"))
    head = opened.find_element(By.XPATH, "//section[2]//thead//button[normalize-space()='Accuracy %']")
    press(opened, head, Keys.SPACE, Keys.SPACE)
    after = "return [...document.querySelectorAll('section:nth-of-type(2) tbody > tr')].map((row) => row.id || 'row')"
    wait(opened, lambda: opened.execute_script(after)[:3] == ["row", "row", detail.get_attribute("id")])
    press(opened, button, Keys.ENTER)
    assert shown(opened, ".detail") == []


@pytest.mark.browser
def test_hostile_names_are_text(opened):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    button = opened.find_element(By.CSS_SELECTOR, "section tbody .method button")
    press(opened, button, Keys.ENTER)
    assert button.text.startswith(HOSTILE)
    assert shown(opened, ".detail pre") == [HOSTILE]
    assert opened.find_elements(By.TAG_NAME, "img") == []


@pytest.mark.browser
def test_on_a_phone_in_light_and_dark(opened):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        for button in opened.find_elements(By.CSS_SELECTOR, "tbody .method button"):
            press(opened, button, Keys.ENTER)
        assert opened.execute_script("return document.scrollingElement.scrollWidth") <= 390
        box = opened.find_elements(By.CSS_SELECTOR, ".scroll")[1]
        accuracy = box.find_element(By.XPATH, ".//tbody/tr[1]/td[@class='number'][contains(., '±')]")
        assert accuracy.rect["x"] + accuracy.rect["width"] <= 390, "the accuracy is seen without scrolling"
        below = "return getComputedStyle(arguments[0].querySelector('.method[data-teacher^=\"resnet20\"]'), '::after').content"
        assert "resnet20" in opened.execute_script(below, box), "the teacher is below its method"
        assert "gradient" in opened.execute_script("return getComputedStyle(arguments[0]).backgroundImage", box)
        opened.execute_script("arguments[0].scrollLeft = 200", box)
        method = box.find_element(By.CSS_SELECTOR, "tbody .method")
        assert 0 <= method.rect["x"] - box.rect["x"] <= 2, "the method stays in sight"
        background = "return getComputedStyle(document.body).backgroundColor"
        before = opened.execute_script(background)
        press(opened, opened.find_element(By.ID, "theme"), Keys.ENTER)
        assert opened.execute_script(background) != before
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.browser
def test_the_sections_on_a_phone(browser, board):
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        browser.get((board / PAGE).as_uri())
        assert len(shown(browser, "section > h2")) == 4
        assert len(shown(browser, ".still tbody tr")) == 2 + 1
        assert browser.execute_script("return document.scrollingElement.scrollWidth") <= 390
        assert browser.get_log("browser") == []
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.browser
def test_colours_follow_the_system_until_somebody_chooses(opened):
    from selenium.webdriver.common.by import By

    def system(scheme):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        return opened.execute_script("return getComputedStyle(document.body).backgroundColor")

    opened.execute_script("localStorage.clear()")
    opened.refresh()
    try:
        light, dark = system("light"), system("dark")
        assert light != dark
        opened.find_element(By.ID, "theme").click()
        assert system("dark") == light
    finally:
        opened.execute_script("localStorage.clear()")
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.mark.browser
def test_the_policy_stops_what_is_foreign(browser, page):
    page.write_text(page.read_text().replace("</main>", "<script>document.title = 'taken'</script></main>"))
    browser.get(page.as_uri())
    assert browser.title == "Leaderboard · kdbench"
    assert "Content Security Policy" in browser.get_log("browser")[0]["message"]
