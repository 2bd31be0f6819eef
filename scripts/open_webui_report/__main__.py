"""The command: make the environments, serve, start Open WebUI, drive it in a browser, judge."""

import argparse
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.environments import node_environment, python_environment
from scripts.open_webui_report.judge import Evidence, judge
from scripts.open_webui_report.served import (
    ADA,
    BERT,
    DESK,
    INDEX,
    MODEL,
    READER,
    TOOL_CALLER,
    USER_TOKEN_SECRET,
    Served,
    served,
)
from scripts.open_webui_report.webui import Addresses, open_webui, settings

HERE = Path(__file__).parent
DRIVER = HERE / "js" / "drive.mjs"
PINS = HERE / "open_webui.txt"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DRIVE_S = 1800
UPLOAD = "docs-markitdown/files/REPAIR-2022-INV-001_multipage.pdf"
CHAPTERS = "docs-rust-book/files/src"


def main() -> None:
    """Parse the arguments and run; the exit status is 1 when a check failed."""
    told = _arguments()
    program = told.program or _program(told.cache)
    driver = node_environment(
        told.cache / "browser",
        [HERE / "js" / name for name in ("package.json", "package-lock.json")],
    )
    shutil.copy(DRIVER, driver)  # node looks for packages beside the script
    with served(told.models, told.data / CHAPTERS) as both:
        upstream = f"{both.theirs.url}/v1"
        where = Addresses(both.url, READER, upstream, USER_TOKEN_SECRET, told.reranker)
        with open_webui(program, settings(where)) as url:
            seen = _drive(driver, url, both, told)
            seen["webui"] = url
        rows = judge(Evidence(seen, both, told.data / UPLOAD, told.reranker))
    for row in rows:
        print(f"{'FAIL' if row.problem else 'pass'} {row.what}{row.problem and f': {row.problem}'}")
    if any(row.problem for row in rows):
        raise SystemExit(1)


def _program(cache: Path) -> Path:
    folder = python_environment(cache / "open-webui", PINS, ("open-webui", "torch"))
    return folder / "bin" / "open-webui"


def _drive(folder: Path, url: str, both: Served, told: argparse.Namespace) -> dict[str, Any]:
    """Run the browser; return what it saw, by step."""
    told.pictures.mkdir(parents=True, exist_ok=True)
    step = {
        "WEBUI_URL": url,
        "BROWSER": str(told.browser),
        "PICTURES": str(told.pictures.resolve()),
        "INDEX": INDEX,
        "MODEL": MODEL,
        "TOOL_CALLER": TOOL_CALLER,
        "QUESTION": "What happens when the owner of a value goes out of scope?",
        "FILE_QUESTION": "Who is the estimator of the repair?",
        "DESK": DESK,
        "DESK_QUESTION": "How large is the travel budget of the team?",
        "PEOPLE": json.dumps([{"name": one.name, "email": one.email} for one in (ADA, BERT)]),
        "ELSEWHERE": "Which cheese did the bishop of Zanzibar prefer in 1731?",
        "UPLOAD": str((told.data / UPLOAD).resolve()),
        "TOOLS_URL": f"{both.url}/tools",
        "KEY": READER,
    }
    done = subprocess.run(
        ["node", DRIVER.name],
        cwd=folder,
        env={**_environment(), **step},
        stdout=subprocess.PIPE,
        check=False,
        timeout=DRIVE_S,
    )
    if done.returncode:
        raise SystemExit(f"The browser's part ended with status {done.returncode}.")
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


def _environment() -> Mapping[str, str]:
    return {
        name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")
    }


def _browser() -> Path | None:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    return Path(found) if found else None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/open_webui", description=__doc__)
    parser.add_argument("--models", type=Path, required=True, help="models folder of a home")
    parser.add_argument("--cache", type=Path, required=True, help="where environments are kept")
    parser.add_argument("--data", type=Path, required=True, help="folder with the real documents")
    parser.add_argument("--pictures", type=Path, required=True, help="where screenshots go")
    parser.add_argument("--browser", type=Path, default=_browser(), help="Chromium's program")
    parser.add_argument("--program", type=Path, help="an open-webui that is installed already")
    parser.add_argument("--reranker", default="", help="installed reranker, to be used as well")
    told = parser.parse_args()
    if told.browser is None:
        parser.error("no Chromium on the path; install it, or name it with --browser")
    if shutil.which("npm") is None:
        parser.error("node and npm are needed, and are not on the path")
    for path in (told.data / UPLOAD, told.data / CHAPTERS):
        if not path.exists():
            parser.error(f"there is no `{path}`: --data names the folder with the real documents")
    return told


if __name__ == "__main__":
    main()
