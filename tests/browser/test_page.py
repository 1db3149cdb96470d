"""A person's way: open the page in a browser, change a value, see the prediction."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait
from tests.unit.runtime import conftest as models

PORT = 18471


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Serve the echo: text, number and whole number come back as they were given."""
    folder: Path = tmp_path_factory.mktemp("model")
    options = models.echo().write(folder)
    digest = "sha256:" + hashlib.sha256(options.folder.joinpath("model.onnx").read_bytes()).hexdigest()
    arguments = ["--model-dir", str(folder), "--name", "toy", "--version", "c0ffee1234", "--model-digest", digest]
    command = [sys.executable, "-m", "slipway_runtime", *arguments, "--host", "127.0.0.1", "--port", str(PORT)]
    url = f"http://127.0.0.1:{PORT}"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + 20
            while True:
                with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/v2/health/ready"):  # noqa: S310 -- http, as above
                    break
                assert time.monotonic() < end, "the runtime does not listen"
                time.sleep(0.05)
            yield url
        finally:
            process.kill()


@pytest.fixture
def browser(tmp_path):
    """Debian's Chromium without a window."""
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    # Root in a container has no sandbox to use; the page is our own.
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1240,1100"):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={tmp_path}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service("/usr/bin/chromedriver"))
    try:
        yield driver
    finally:
        driver.quit()


def answer_of(browser) -> str:
    return WebDriverWait(browser, 10).until(
        lambda driver: driver.find_element(By.ID, "answer").text.strip() or False, "no answer is shown"
    )


def test_a_changed_row_brings_a_prediction(page, browser):
    browser.get(page)
    carrier = browser.find_element(By.NAME, "carrier")
    assert carrier.get_attribute("value") == "UA"
    carrier.clear()
    carrier.send_keys("WN")
    browser.find_element(By.NAME, "distance").clear()
    browser.find_element(By.CSS_SELECTOR, "button.main").click()

    answer = answer_of(browser)

    assert "WN" in answer
    assert "none" in answer, "the distance was missing"
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []
    if folder := os.environ.get("SLIPWAY_SCREENSHOTS"):
        browser.save_screenshot(str(Path(folder) / "predicted.png"))


def test_what_is_wrong_is_said(page, browser):
    browser.get(page)
    month = browser.find_element(By.NAME, "month")
    month.clear()
    month.send_keys("soon")
    browser.find_element(By.CSS_SELECTOR, "button.main").click()

    assert 'rows[0]."month" is "soon"' in answer_of(browser)


def test_each_language_has_its_tab(page, browser):
    browser.get(page)
    for label in browser.find_elements(By.CSS_SELECTOR, ".tabs > label"):
        label.click()
        shown = [one for one in browser.find_elements(By.CSS_SELECTOR, ".snippet pre") if one.is_displayed()]
        assert len(shown) == 1, label.text
        assert json.dumps("carrier") in shown[0].text or "'carrier'" in shown[0].text
