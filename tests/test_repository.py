"""Rules about the repository's files."""

import re
import shutil
import subprocess
import tomllib
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 13_000_000
# Split, so that this file does not hold what it forbids.
MACHINE_PATH = re.compile(rb"(?<![\w.])/(?:" + b"|".join([b"work/", b"tmp/w/", b"root/", b"home/[a-z]"]) + rb")")


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    files = [ROOT / name for name in listed.decode().split("\0") if name]
    return [file for file in files if file.is_file()]


def test_no_file_is_too_large_to_clone_comfortably(tracked):
    assert not {str(file.relative_to(ROOT)): file.stat().st_size for file in tracked if file.stat().st_size > LARGEST}


def test_no_file_contains_a_machine_path(tracked):
    found = {str(file.relative_to(ROOT)): MACHINE_PATH.findall(file.read_bytes()) for file in tracked}
    assert not {name: places for name, places in found.items() if places}


def test_the_root_of_the_library_stays_small(tracked):
    """Modules belong in packages, except the foundation."""
    root = [file for file in tracked if file.suffix == ".py" and file.parent == ROOT / "semanticface"]
    assert 0 < len(root) <= 10


def test_every_dependency_is_pinned():
    def plain(requirement: str) -> str:
        return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {plain(line) for line in lines if re.match(r"[\w.-]+==[\w.]+$", line)}
    # An extra may name other extras of the project itself.
    assert not {plain(requirement) for requirement in wanted} - pinned - {project["name"]}


def test_links_between_documents_resolve(tracked):
    def marks(page):
        """Return GitHub's anchors of a page's headings."""
        headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    pages = [file for file in tracked if file.suffix == ".md"]
    lost = []
    for page in pages:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, mark = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            known = not mark or (target.suffix == ".md" and mark in marks(target))
            if not target.exists() or not known:
                lost.append(f"{page.relative_to(ROOT)}: {link}")
    assert not lost
