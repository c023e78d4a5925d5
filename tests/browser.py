"""Headless Chromium, driven as a person would use it: keys, clicks, what is seen, and what its console complains of."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from selenium.webdriver import Chrome, ChromeOptions, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from backends.pythons import child_env

CHROMIUM, DRIVER = shutil.which("chromium") or "", shutil.which("chromedriver") or ""
MISSING = "chromium and chromium-driver are not installed; FORGEGATE_APT=1 bash tests/run.sh does it, as root"
WAIT_S = 15.0


class Browser:
    """A context manager: a browser with a profile of its own, which goes with it."""

    def __init__(self, profile: Path, width: int = 1280, is_dark: bool = False) -> None:
        options = ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (
            "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
            "--disable-crash-reporter", "--disable-background-networking", "--disable-component-update",
            f"--user-data-dir={profile}",
        ):  # fmt: skip
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = Chrome(options, Service(DRIVER, env=child_env()))
        self.resize(width)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})

    def resize(self, width: int, height: int = 900) -> None:
        """The page's own size: a window cannot be as narrow as a phone."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def open(self, url: str) -> None:
        self.driver.get(url)

    def element(self, css: str) -> WebElement:
        """The first that is seen, once there is one."""
        return WebDriverWait(self.driver, WAIT_S).until(lambda _: self._seen(css), f"{css} is not seen: {self.text()}")

    def _seen(self, css: str) -> WebElement | None:
        return next((one for one in self.driver.find_elements(By.CSS_SELECTOR, css) if one.is_displayed()), None)

    def wait_text(self, css: str, words: str) -> str:
        """The element's text, once it has the words."""
        WebDriverWait(self.driver, WAIT_S).until(
            lambda _: words in self.driver.find_element(By.CSS_SELECTOR, css).text,
            f"no {words!r} in {css}: {self.text()}",
        )
        return self.driver.find_element(By.CSS_SELECTOR, css).text

    def wait_enabled(self, css: str) -> None:
        WebDriverWait(self.driver, WAIT_S).until(lambda _: self.element(css).is_enabled(), f"{css} is disabled")

    def click(self, css: str) -> None:
        self.wait_enabled(css)
        self.element(css).click()

    def press(self, *keys: str) -> None:
        """On the page, or in what has the focus."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def press_with_control(self, key: str) -> None:
        ActionChains(self.driver).key_down(Keys.CONTROL).send_keys(key).key_up(Keys.CONTROL).perform()

    def write(self, css: str, text: str) -> None:
        """In place of what stands in a text field."""
        field = self.element(css)
        field.clear()
        field.send_keys(text)

    def run(self, script: str) -> Any:
        return self.driver.execute_script(script)

    def text(self) -> str:
        return self.driver.find_element(By.TAG_NAME, "body").text

    def source(self) -> str:
        """All that the page has, as it is now."""
        return self.driver.page_source

    def complaints(self) -> list[str]:
        """Warnings and errors of the console, since they were asked for last."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")]

    def overflow(self) -> int:
        """Pixels that the page is wider than its window."""
        return int(self.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def picture(self, path: Path) -> None:
        """The whole page, as a PNG."""
        size = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        width = int(self.run("return innerWidth"))
        self.resize(width, min(int(size["height"]) + 1, 8000))
        self.driver.save_screenshot(str(path))
        self.resize(width)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.driver.quit()
