"""The documents are followed to the letter: files are written as they say, commands run as they say."""

import importlib.util
import json
import math
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest

from kdbench.cli.main import main
from kdbench.config import about, places
from kdbench.config.resolve import resolve

DOCS = Path(__file__).parent.parent / "docs"


pytestmark = pytest.mark.usefixtures("own_plugins")


@pytest.fixture
def follow(tmp_path, monkeypatch):
    """Writes the files of a document into an empty folder, the current one; returns their names and the document's commands."""

    def document(name):
        text = (DOCS / name).read_text()
        files = re.findall(r"`(my\w+/[\w/]+\.\w+)`:\n\n```\w+\n(.*?)```", text, flags=re.DOTALL)
        for file, content in files:
            path = tmp_path / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COLUMNS", "160")
        (commands,) = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
        return [file for file, _ in files], [shlex.split(line)[1:] for line in commands.strip().splitlines()]

    return document


BRIEFLY = ["Train.epochs=2", "Train.warmup=0", "Measures.corruptions=False", "Measures.noise=()"]


@pytest.mark.exhaustive
def test_adding_a_method_step_by_step(tmp_path, capsys, follow):
    files, (listed, shown, run) = follow("adding-a-method.md")
    assert files == ["mykd/methods/order.py", "mykd/gin/method/order.gin", "mykd/gin/method/order_strict.gin"]
    assert main(listed) == 0
    assert re.search(r"^order +Order distillation", capsys.readouterr().out, flags=re.MULTILINE)
    assert main(shown) == 0
    assert "Order.margin = 1.0" in capsys.readouterr().out
    assert main([*run, *BRIEFLY]) == 0
    table = capsys.readouterr().out
    ranked = {line.split()[1]: line.split()[0] for line in table.splitlines() if re.match(r"\d ", line)}
    assert set(ranked) == {"ce", "kd", "order"}
    assert len(list((tmp_path / "runs").glob("order-digits-resnet8-s*/result.json"))) == 3
    assert main(["show", "methods=order_strict", "--plugins", "mykd"]) == 0
    assert "Order.margin = 0.0" in capsys.readouterr().out


@pytest.mark.exhaustive
def test_adding_a_backbone_step_by_step(tmp_path, capsys, follow):
    files, (listed, run) = follow("adding-a-backbone.md")
    assert files == ["mynets/backbones/plain.py"]
    assert main(listed) == 0
    out = capsys.readouterr().out
    assert re.search(rf"^plain16 +Plain convolutional networks.* {tmp_path}/mynets *$", out, flags=re.MULTILINE)
    assert re.search(r"^resnet8 +The residual networks.* built in *$", out, flags=re.MULTILINE)
    assert main([*run, *BRIEFLY]) == 0
    assert "digits · plain8" in capsys.readouterr().out
    assert {path.name.rsplit("-", 1)[0] for path in (tmp_path / "runs").glob("[!.]*")} == {
        "ce-digits-plain16-s0", "ce-digits-plain8-s0", "kd-digits-plain8-s0",
    }  # fmt: skip


@pytest.mark.exhaustive
def test_adding_a_dataset_step_by_step(tmp_path, capsys, follow):
    files, (listed, readers, run) = follow("adding-a-dataset.md")
    assert files == ["mydata/readers/bars.py", "mydata/gin/dataset/bars.gin"]
    assert main(listed) == 0
    assert re.search(rf"^bars +Drawn bars: 300.* {tmp_path}/mydata *$", capsys.readouterr().out, flags=re.MULTILINE)
    assert main(readers) == 0
    assert re.search(rf"^bars +Drawn bars: hor.* {tmp_path}/mydata *$", capsys.readouterr().out, flags=re.MULTILINE)
    assert main([*run, "teacher=resnet8", *BRIEFLY]) == 0
    assert "bars · resnet8" in capsys.readouterr().out


@pytest.mark.exhaustive
def test_adding_a_measure_step_by_step(tmp_path, capsys, follow):
    files, (listed, run, leaderboard) = follow("adding-a-measure.md")
    assert files == ["mymeasures/measures/entropy.py"]
    assert main(listed) == 0
    assert re.search(rf"^entropy +Entropy of.* {tmp_path}/mymeasures *$", capsys.readouterr().out, flags=re.MULTILINE)
    assert main([*run, "teacher=resnet8", *BRIEFLY]) == 0
    for path in (tmp_path / "runs").glob("*/result.json"):
        result = json.loads(path.read_text())
        assert 0 < result["entropy.mean"] < math.log(10)
        assert len([key for key in result if key.startswith("entropy.of.")]) == 10
    assert main(leaderboard) == 0
    head = (tmp_path / "leaderboard" / "results.csv").read_text().splitlines()[0].split(",")
    assert {"entropy.mean", "entropy.of.0", "entropy.of.9"} <= set(head)
    table = (tmp_path / "leaderboard" / "README.md").read_text()
    assert re.search(r"\| +Entropy \| +Δ ce Entropy \|", table)


def test_links_between_documents_lead_somewhere():
    root = DOCS.parent
    for document in [root / "README.md", *DOCS.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


@pytest.mark.parametrize("document", ["README.md", "CHANGELOG.md"])
def test_the_number_of_methods_and_families_is_that_of_the_files(document, capsys):
    methods = {name for name, path in places.sources().items() if places.origin(path) == places.BUILT_IN}
    figures = f"[{len(methods)} methods of {len(about.families(methods))} families](docs/methods.md)"
    assert figures in (DOCS.parent / document).read_text(), f"{document} must say: {figures}"


@pytest.mark.parametrize(("document", "least"), [("README.md", 7), ("docs/controls-cifar100.md", 18)])
def test_the_tables_in_documents_are_those_of_the_leaderboard(document, least):
    def lines(path):
        return [re.sub(r" +", " ", line) for line in path.read_text().splitlines() if re.match(r"\| +(#|\d)", line)]

    shown, board = lines(DOCS.parent / document), lines(DOCS.parent / "leaderboard" / "README.md")
    assert len(shown) >= least
    cells = shown[0].count("|")  # a document may leave out the last columns, of all its lines
    assert set(shown) <= {"|".join([*row.split("|")[:cells], ""]) for row in board}


def test_the_tables_of_the_claims_are_what_their_command_gives_of_the_committed_rows(tmp_path):
    def lines(text):
        return {re.sub(r" +", " ", line) for line in text.splitlines() if re.match(r"\| +(#|\d)", line)}

    text = (DOCS / "claims.md").read_text().partition("## Neighbours")[0]
    (command,) = re.findall(r"^    (kdbench leaderboard columns=.*)$", text, flags=re.MULTILINE)
    shutil.copy(DOCS.parent / "leaderboard" / "results.csv", tmp_path)
    assert main([*shlex.split(command)[1:], "--runs", str(tmp_path / "none"), "--out", str(tmp_path)]) == 0
    assert len(lines(text)) == 13, "two tables of six methods, and their head"
    assert lines(text) <= lines((tmp_path / "README.md").read_text())


def test_the_table_of_neighbours_is_what_its_command_gives_of_the_committed_rows():
    spec = importlib.util.spec_from_file_location("neighbours", DOCS / "neighbours.py")
    neighbours = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(neighbours)
    text = (DOCS / "claims.md").read_text()
    assert neighbours.filled(text) == text, "run: python docs/neighbours.py"
    for name in neighbours.TABLES:
        of_table = text.partition(neighbours.BEGIN.format(name))[2].partition(neighbours.END)[0]
        shown = {line.split("|")[2].split()[0] for line in of_table.splitlines() if "±" in line}
        assert {"ce", "byot", "corsd"} <= shown
        assert not {"kd", "rkd", "crd", "born_again"} & shown


def test_the_committed_leaderboard_is_what_its_rows_give():
    assert main(["leaderboard", "--check", "--out", str(DOCS.parent / "leaderboard")]) == 0


def test_the_architecture_shows_the_rooms_that_there_are_in_the_order_that_lint_holds():
    text = (DOCS / "architecture.md").read_text()
    picture = re.search(r"```\nkdbench/\n(.*?)```", text, flags=re.DOTALL)[1]
    shown = [name for name in re.findall(r"^  ((?:\w+(?:/|\.py) *)+)(?:  |$)", picture, flags=re.MULTILINE)]
    package = DOCS.parent / "kdbench"
    rooms = {f"{path.name}/" for path in package.iterdir() if (path / "__init__.py").is_file()}
    modules = {
        path.name for path in package.glob("*.py") if not path.name.startswith("__") and path.name != "version.py"
    }
    assert {name for line in shown for name in line.split()} == rooms | modules
    layers = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0][
        "layers"
    ]
    order = re.search(r"Order: `(.*?)`", text, flags=re.DOTALL)[1]
    assert [re.findall(r"\w+", layer) for layer in order.split(">")] == [
        re.findall(r"kdbench\.(\w+)", layer) for layer in layers
    ]


def test_every_line_on_security_names_a_test_that_exists():
    text = (DOCS / "security.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("|") and not line.startswith(("| what", "|---"))]
    assert len(rows) > 10
    for row in rows:
        assert "`tests/" in row, row
    for path, _, name in (named.partition("::") for named in re.findall(r"`(tests/[^`]*)`", text)):
        file = DOCS.parent / path
        assert file.is_file(), path
        assert f"def {name}" in file.read_text()


def test_the_table_of_recipes_is_that_of_the_files():
    rows = re.findall(
        r"^\| (`.*?) \| .*? \| ([\d, ]+) \| ([\d, ]+) \| (.*?) \|", (DOCS / "recipes.md").read_text(), flags=re.M
    )
    listed = {}
    for names, *values in rows:
        columns = [re.findall(r"[\d.e-]*\d", value) for value in values]
        for place, name in enumerate(re.findall(r"`(\w+)`", names)):
            listed[name] = [float(column[place]) for column in columns]
    assert set(listed) == set(places.members("recipe"))
    for name, (epochs, batch, rate) in listed.items():
        shared = resolve("ce", "cifar100", name).shared
        (of_optimiser,) = [b.value for key, b in shared.items() if key in ("SGD.lr", "AdamW.lr")]
        assert (shared["Train.epochs"].value, shared["Train.batch_size"].value, of_optimiser) == (epochs, batch, rate)
