"""Files that people and programs look for in a repository: citation, changes, issue forms, checks before a commit, containers."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from kdbench.version import __version__

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[1]
FORMS = sorted(path.name for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
CONTAINERS = ROOT / "docs" / "containers"


def test_the_citation_is_valid_and_of_this_version():
    citation = pytest.importorskip("cffconvert.cli.create_citation")
    text = citation.create_citation(str(ROOT / "CITATION.cff"), None)
    text.validate()
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__


def test_the_version_has_one_source():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert project["tool"]["hatch"]["version"]["path"] == "kdbench/version.py"


def test_the_changelog_has_the_headings_of_its_form():
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    assert versions[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", version) for version in versions[1:])
    kinds = re.findall(r"^### (.*)$", text, flags=re.MULTILINE)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security", "Results"}


@pytest.mark.parametrize("name", FORMS)
def test_an_issue_form_is_one_that_can_be_filled_in(name):
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / name).read_text())
    assert {"name", "description", "body"} <= set(form)
    fields = [item for item in form["body"] if item["type"] != "markdown"]
    assert len({item["id"] for item in fields}) == len(fields)
    for item in fields:
        assert item["type"] in ("input", "textarea", "dropdown", "checkboxes")
        assert item["attributes"]["label"]
        assert item["type"] != "dropdown" or len(item["attributes"]["options"]) > 1
    assert any(item.get("validations", {}).get("required") for item in fields)


def test_the_checks_before_a_commit_are_those_of_make_lint():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    hooks = {shlex.split(hook["entry"])[0].removeprefix(".venv/bin/") for hook in repository["hooks"]}
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)[1]
    assert hooks == set(re.findall(r"\$\(BIN\)/([\w-]+)", recipe))


def test_links_of_the_files_at_the_top_lead_somewhere():
    for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / name).read_text()):
            assert (ROOT / target).exists(), f"{name} links to {target}"


def test_the_readme_is_short():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) < 120
    assert {"    make demo", "    make test"} <= {line.split("  #")[0].rstrip() for line in lines}


# Both files are checked as far as it is possible without a builder.
DOCKERFILE_WORDS = ("FROM", "RUN", "WORKDIR", "COPY", "ENV", "ENTRYPOINT", "CMD")
DEFINITION_SECTIONS = ("help", "setup", "files", "environment", "post", "runscript", "startscript", "test", "labels")


def dockerfile():
    """The instructions of the Dockerfile and their arguments."""
    text = (CONTAINERS / "Dockerfile").read_text().replace("\\\n", " ")
    return [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]


def definition():
    """The header of the Apptainer definition, and its sections by name."""
    text = re.sub(r"^#.*\n", "", (CONTAINERS / "kdbench.def").read_text(), flags=re.MULTILINE)
    header, *sections = re.split(r"^%", text, flags=re.MULTILINE)
    return dict(line.split(": ") for line in header.split("\n") if line), dict(
        section.split("\n", 1) for section in sections
    )


def test_the_dockerfile_has_known_instructions_and_copies_files_that_exist():
    instructions = dockerfile()
    assert instructions[0][0] == "FROM"
    assert {word for word, _ in instructions} <= set(DOCKERFILE_WORDS)
    for word, arguments in instructions:
        if word == "COPY":
            assert all((ROOT / source).exists() for source in arguments.split()[:-1]), arguments
        if word in ("ENTRYPOINT", "CMD"):
            assert isinstance(yaml.safe_load(arguments), list)


def test_the_apptainer_definition_has_known_sections_and_copies_files_that_exist():
    header, sections = definition()
    assert set(header) == {"Bootstrap", "From"}
    assert set(sections) <= set(DEFINITION_SECTIONS)
    for line in sections["files"].split("\n"):
        assert not line.strip() or (ROOT / line.split()[0]).exists(), line


def test_both_images_install_the_same_and_no_extra_that_does_not_exist():
    copied = {arguments.split()[0] for word, arguments in dockerfile() if word == "COPY"} | {"README.md", "LICENSE"}
    header, sections = definition()
    assert copied == {line.split()[0] for line in sections["files"].split("\n") if line.strip()}
    assert dockerfile()[0][1] == header["From"]
    commands = [arguments for _, arguments in dockerfile() if arguments.startswith("pip install")]
    commands += [line.strip() for line in sections["post"].split("\n") if line.strip().startswith("pip install")]
    assert len(commands) == 2
    assert len(set(commands)) == 1
    extras = set(re.search(r"\[(.*)\]", commands[0])[1].split(","))
    assert extras <= set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
