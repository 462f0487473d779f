"""A real browser without a screen, for pages; skips where there is none."""

import base64
import contextlib
import json
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import pytest

DESKTOP, PHONE = 1280, 390  # CSS pixels
_FLAGS = (
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
)


class Browser:
  """A window of Chromium."""

  def __init__(self, driver):
    self.driver = driver

  def open(self, address: str, width: int, *, dark: bool = False) -> None:
    """Shows a page in a window of so many CSS pixels; forgets the last."""
    command = self.driver.execute_cdp_cmd
    command(
      "Emulation.setDeviceMetricsOverride",
      {
        "width": width,
        "height": 844,
        "deviceScaleFactor": 1,
        "mobile": width < 600,
      },
    )
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else ""}
    command("Emulation.setEmulatedMedia", {"features": [scheme]})
    self.driver.get("about:blank")
    for log in ("browser", "performance"):
      self.driver.get_log(log)
    self.driver.get(address)

  def overflow(self) -> int:
    """By how many pixels the page is wider than its window."""
    return self.driver.execute_script(
      "return document.documentElement.scrollWidth"
      " - document.documentElement.clientWidth"
    )

  def text(self) -> str:
    """What can be read on the page."""
    return self.driver.execute_script("return document.body.innerText")

  def errors(self) -> list[str]:
    """What the console has complained about since `open`."""
    return [
      entry["message"]
      for entry in self.driver.get_log("browser")
      if entry["level"] in ("SEVERE", "WARNING")
    ]

  def requests(self) -> list[str]:
    """Addresses asked for since `open`; neither data nor its own."""
    found = []
    for entry in self.driver.get_log("performance"):
      message = json.loads(entry["message"])["message"]
      if message["method"] == "Network.requestWillBeSent":
        found.append(message["params"]["request"]["url"])
    return [
      url for url in found if not url.startswith(("data:", "blob:", "chrome:"))
    ]

  def screenshot(self, file: pathlib.Path) -> None:
    """Writes all of the page, also what is below the window."""
    picture = self.driver.execute_cdp_cmd(
      "Page.captureScreenshot", {"captureBeyondViewport": True}
    )
    file.write_bytes(base64.b64decode(picture["data"]))


@contextlib.contextmanager
def start(*flags: str) -> Iterator[Browser]:
  """A browser with a profile of its own; skips the test without one.

  Args:
    *flags: further flags of Chromium.
  """
  webdriver = pytest.importorskip(
    "selenium.webdriver", reason="needs the package selenium"
  )
  programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
  if not all(programs):
    pytest.skip("needs the programs chromium and chromedriver")
  options = webdriver.ChromeOptions()
  options.binary_location = programs[0]
  for flag in (*_FLAGS, *flags):
    options.add_argument(flag)
  logs = {"browser": "ALL", "performance": "ALL"}
  options.set_capability("goog:loggingPrefs", logs)
  with tempfile.TemporaryDirectory() as profile:
    options.add_argument(f"--user-data-dir={profile}")
    service = webdriver.ChromeService(programs[1])
    driver = webdriver.Chrome(options, service)
    try:
      yield Browser(driver)
    finally:
      driver.quit()
