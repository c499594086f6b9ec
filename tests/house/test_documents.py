"""The pages say what is true of the code."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def commands(page: str) -> list[str]:
    return re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("page", ["README.md", "README.ru.md"])
def test_a_readme_opens_with_the_two_commands(page: str) -> None:
    run, test, *_ = commands(page)

    assert run == "./serve\n"
    assert "exec .venv/bin/scibox serve" in (ROOT / "serve").read_text("utf-8")
    assert test == "./check\n"
    assert "exec ./check" in (ROOT / ".ci" / "run").read_text("utf-8")


def test_both_readmes_have_the_same_commands() -> None:
    def bare(page: str) -> list[str]:
        return [re.sub(r"\s+#.*", "", block) for block in commands(page)]

    assert bare("README.md") == bare("README.ru.md")


def test_links_between_pages_lead_somewhere() -> None:
    missing = []
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            if not (page.parent / target).exists():
                missing.append(f"{page.name}: {target}")

    assert missing == []


@pytest.mark.parametrize("page", ["docs/manual.en.md", "docs/manual.ru.md"])
def test_the_manual_explains_every_code_of_an_error(page: str) -> None:
    rooms = ("core", "wire", "gate", "router", "service", "upstream", "http")
    code = "\n".join(
        path.read_text("utf-8") for room in rooms for path in (ROOT / "src" / "scibox" / room).rglob("*.py")
    )
    codes = set(re.findall(r'\bcode(?:: str)? ?= ?"([a-z_]+)"', code))

    assert len(codes) > 15
    assert [name for name in sorted(codes) if f"`{name}`" not in (ROOT / page).read_text("utf-8")] == []


def test_the_architecture_page_is_short() -> None:
    assert len((ROOT / "docs" / "architecture.md").read_text("utf-8").splitlines()) < 150


def test_few_dependencies_each_pinned_with_hashes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    locked = (ROOT / "requirements.txt").read_text("utf-8")
    names = set(re.findall(r"^([a-z0-9._-]+)==", locked, re.MULTILINE))
    direct = {re.split(r"[><=]", requirement)[0] for requirement in project["dependencies"]}

    assert len(direct) <= 15
    assert len(names) <= 40
    assert direct <= names
    assert locked.count("==") - locked.count("python_full_version ==") >= len(names)
    assert len(re.findall(r"--hash=sha256:", locked)) >= len(names)
    assert "://" not in locked
