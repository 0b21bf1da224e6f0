"""The documents are followed to the letter: files are written as they say, commands run as they say."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from kdbench.cli.main import main

DOCS = Path(__file__).parent.parent / "docs"


pytestmark = pytest.mark.usefixtures("own_plugins")


def test_adding_a_method_step_by_step(tmp_path, monkeypatch, capsys):
    text = (DOCS / "adding-a-method.md").read_text()
    files = re.findall(r"`(mykd/[\w/]+\.\w+)`:\n\n```\w+\n(.*?)```", text, flags=re.DOTALL)
    assert [name for name, _ in files] == [
        "mykd/methods/order.py", "mykd/gin/method/order.gin", "mykd/gin/method/order_strict.gin",
    ]  # fmt: skip
    for name, content in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    (commands,) = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    listed, shown, run = (shlex.split(line)[1:] for line in commands.strip().splitlines())

    assert main(listed) == 0
    assert re.search(r"^order +Order distillation", capsys.readouterr().out, flags=re.MULTILINE)
    assert main(shown) == 0
    assert "Order.margin = 1.0" in capsys.readouterr().out
    assert main([*run, "Train.epochs=2", "Train.warmup=0"]) == 0
    table = capsys.readouterr().out
    ranked = {line.split()[1]: line.split()[0] for line in table.splitlines() if re.match(r"\d ", line)}
    assert set(ranked) == {"ce", "kd", "order"}
    assert len(list((tmp_path / "runs").glob("order-digits-resnet8-s*/result.json"))) == 3
    assert main(["show", "methods=order_strict", "--plugins", "mykd"]) == 0
    assert "Order.margin = 0.0" in capsys.readouterr().out


def test_links_between_documents_lead_somewhere():
    root = DOCS.parent
    for document in [root / "README.md", *DOCS.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


@pytest.mark.parametrize(("document", "least"), [("README.md", 7), ("docs/controls-cifar100.md", 18)])
def test_the_tables_in_documents_are_those_of_the_leaderboard(document, least):
    def lines(path):
        return [re.sub(r" +", " ", line) for line in path.read_text().splitlines() if re.match(r"\| +(#|\d)", line)]

    shown, board = lines(DOCS.parent / document), lines(DOCS.parent / "leaderboard" / "README.md")
    assert len(shown) >= least
    assert set(shown) <= set(board)


def test_the_tables_of_the_claims_are_what_their_command_gives_of_the_committed_rows(tmp_path):
    def lines(text):
        return {re.sub(r" +", " ", line) for line in text.splitlines() if re.match(r"\| +(#|\d)", line)}

    text = (DOCS / "claims.md").read_text()
    (command,) = re.findall(r"^    (kdbench leaderboard columns=.*)$", text, flags=re.MULTILINE)
    shutil.copy(DOCS.parent / "leaderboard" / "results.csv", tmp_path)
    assert main([*shlex.split(command)[1:], "--runs", str(tmp_path / "none"), "--out", str(tmp_path)]) == 0
    assert len(lines(text)) == 13, "two tables of six methods, and their head"
    assert lines(text) <= lines((tmp_path / "README.md").read_text())


def test_the_committed_leaderboard_is_what_its_rows_give():
    assert main(["leaderboard", "--check", "--out", str(DOCS.parent / "leaderboard")]) == 0
