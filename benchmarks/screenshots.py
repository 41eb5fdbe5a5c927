"""Pictures of pages as readers see them: light, dark, and on a phone.

    python benchmarks/screenshots.py OUT PAGE.html...

Each page of a run is opened in a headless Chromium; its errors, requests, sideways scroll and texts
of too little contrast are told beside the picture.
"""

from __future__ import annotations

import argparse
import base64
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from browser import BROWSER, browser

VIEWS = (("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("pages", type=Path, nargs="+")
    options = parser.parse_args()
    if BROWSER is None:
        print("no Chromium is installed", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    faults = 0
    with tempfile.TemporaryDirectory() as profile, browser(profile) as tab:
        for page in options.pages:
            name = "-".join(page.resolve().with_suffix("").parts[-3:])
            for scheme, width in VIEWS:
                tab.size(width, 900)
                tab.scheme(scheme)
                tab.visit(page.resolve())
                picture = tab.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
                file = options.out / f"{name}-{scheme}-{width}.png"
                file.write_bytes(base64.b64decode(picture))
                told = [*map(str, tab.complaints()), *tab.contrasts()]
                wide = tab.js("document.documentElement.scrollWidth")
                told += [f"{wide} px wide"] if wide > width else []
                faults += len(told)
                print(file, *(told or ["ok"]), sep="  ")
            print(f"{page}: {page.stat().st_size / 1e6:.2f} MB")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
