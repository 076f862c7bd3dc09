"""What the documents point to is there."""

import pathlib
import re
import shlex

import pytest

from mbpo_jax.launch import flags

ROOT = pathlib.Path(__file__).parents[1]
DOCUMENTS = [
    path for path in ROOT.rglob("*.md") if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
]


def anchors(path):
    """The anchors that GitHub gives the headings of a document."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(path):
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", path.read_text()):
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def training_commands(path):
    """The commands of a document that train, each in one line, with numbers in place of what a reader puts in."""
    text = re.sub(r" *\\?\n +(?=--)", " ", path.read_text())  # a command goes on where the next line begins with a flag
    found = re.findall(r"^ *(?:mbpo_jax train|python -m mbpo_jax\.main) ([^#\n`&]*)", text, re.MULTILINE)
    return [re.sub(r"\$\([^)]*\)|\$\w+|(?<=--seeds=)S\b", "1", command) for command in found]


def parse_error(words):
    """Returns the command and what is wrong with it; '' if nothing is."""
    try:
        flags.parse(words)
    except flags.FlagsError as error:
        return f"{shlex.join(words)}: {error}"
    return ""


@pytest.mark.parametrize(
    "path", [path for path in DOCUMENTS if training_commands(path)], ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_every_command_that_trains_parses(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    commands = [shlex.split(command) for command in training_commands(path) if "--help" not in command]
    assert [error for error in map(parse_error, commands) if error] == []


def test_the_commands_were_found():
    found = {path.relative_to(ROOT).as_posix(): len(training_commands(path)) for path in DOCUMENTS}
    assert found["docs/offline.md"] >= 4 and found["docs/through_the_model.md"] >= 8 and found["docs/clusters.md"] >= 3


def test_the_documents_were_found():
    assert {"README.md", "docs/results.md", "docs/results/model.md"} <= {
        path.relative_to(ROOT).as_posix() for path in DOCUMENTS
    }
