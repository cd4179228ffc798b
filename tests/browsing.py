"""The browser that tests of pages use, what it measures of one, and requests without a browser."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from playwright.sync_api import Browser, expect, sync_playwright

from normloom.view import ViewServer

# The first has no windows and takes a quarter less CPU time.
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
ENOUGH = 60_000  # milliseconds that a busy machine may take for a page
expect.set_options(timeout=ENOUGH)

# Returns the texts on the page whose contrast with what is behind them is below 4.5 (WCAG 2.1, AA).
CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const parse = (text) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const behind = (node) => {
    for (let one = node; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const low = [];
  for (const node of document.querySelectorAll("body *")) {
    const text = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!text || !node.checkVisibility() || node.matches(":disabled, #said")) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) low.push(`${node.tagName} ${node.className} ${node.textContent.slice(0, 30)} ${ratio}`);
  }
  return low;
}"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run the browser without an emulated GPU, which costs more CPU time than drawing in software.

    It has no way to anywhere but this machine. Playwright's routes would do that too, but keep no scripts in a cache.
    The list below the address bar is off: it is a page of its own in each window, and costs as much as a small one.
    """
    flags = ["--no-sandbox", "--disable-gpu", "--disable-gpu-compositing"]
    flags.append("--disable-features=WebUIOmniboxPopup,WebUIOmniboxAimPopup")
    flags.append("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


def ask(server: ViewServer, path: str, body: object) -> tuple[int, dict[str, object]]:
    """Send a request with the page's token; return the status and the answer."""
    address = urlsplit(server.url)
    sent = {"Authorization": f"Bearer {address.fragment.removeprefix('token=')}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"http://{address.netloc}{path}", json.dumps(body).encode(), sent)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
