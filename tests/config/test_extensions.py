"""Extensions in plug-in folders: found, refused in one sentence, imported when they are used."""

import json
import os
import pickle
import re
import subprocess
import sys
import textwrap

import pytest

from kdbench.backbones import registry as backbones
from kdbench.cli.main import main
from kdbench.config import extensions, places
from kdbench.data.readers import registry as readers
from kdbench.errors import RunError, UserError

pytestmark = pytest.mark.usefixtures("own_plugins")

NET = """
from kdbench.backbones.cifar_resnet import CifarResNet
class Mine(CifarResNet): pass
"""


@pytest.fixture
def plugin(tmp_path):
    """Adds a plug-in root with these files (their text, by path) and returns it."""

    def add(files, root="mine"):
        for name, text in files.items():
            path = tmp_path / root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        places.add_plugins([str(tmp_path / root)])
        return tmp_path / root

    return add


def backbone(table, code=NET):
    return {"backbones/net.py": f'"""My nets."""\n{code}\nBACKBONES = {table}\n'}


def test_members_of_kdbench_itself():
    assert {"resnet8", "resnet8x4", "resnet18"} <= set(extensions.members("backbone"))
    assert set(extensions.members("reader")) >= {"digits", "cifar10", "cifar100"}
    assert set(extensions.members("launcher")) >= {"inline", "local", "slurm"}
    assert set(extensions.members("measure")) >= {"calibration", "convergence", "robustness"}
    assert {e.origin for kind in extensions.KINDS for e in extensions.members(kind).values()} == {"built in"}


@pytest.mark.parametrize("kind", extensions.KINDS)
def test_what_kdbench_declares_can_be_loaded(kind):
    for extension in extensions.members(kind).values():
        assert callable(extensions.load(extension))


def test_a_backbone_of_a_plugin(plugin):
    root = plugin(backbone('{"mine": ("Mine", {"depth": 8, "widths": (4, 4, 8, 8)})}'))
    extension = extensions.member("backbone", "mine")
    assert (extension.path, extension.origin) == (root / "backbones" / "net.py", str(root))
    assert extension.summary == "My nets."
    assert backbones.build("mine", classes=3, channels=1).fc.out_features == 3


def test_files_import_their_neighbours_and_two_roots_may_have_the_same_file_names(plugin):
    for root in ("one", "two"):
        plugin(
            {
                "backbones/_blocks.py": f"WIDTH = {len(root) + (root == 'two')}\n",
                "backbones/net.py": f"from ._blocks import WIDTH\n{NET}\nBACKBONES = {{'{root}': 'Mine'}}\n",
            },
            root,
        )
    classes = [extensions.load(extensions.member("backbone", name)) for name in ("one", "two")]
    assert classes[0] is not classes[1]
    assert [sys.modules[cls.__module__].WIDTH for cls in classes] == [3, 4]


def test_another_process_unpickles_what_a_plugin_defines(plugin):
    plugin({"readers/mine.py": "READERS = {'mine': 'read'}\ndef read(source, folder): return source\n"})
    content = pickle.dumps(extensions.load(extensions.member("reader", "mine")))
    code = f"import pickle; print(pickle.loads({content!r})('loaded', None))"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, check=True)
    assert done.stdout == "loaded\n"


def test_a_name_that_two_files_declare_names_both(plugin):
    root = plugin(backbone('{"resnet8": "Mine"}'))
    with pytest.raises(UserError, match="the backbone 'resnet8' is defined twice") as error:
        extensions.members("backbone")
    assert str(root / "backbones" / "net.py") in str(error.value)
    assert str(extensions.__file__).replace("config/extensions", "backbones/cifar_resnet") in str(error.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("BACKBONES = {", "does not parse"),
        ("x = 1", "has no table BACKBONES at its top level"),
        ("BACKBONES = {f'net{n}': 'Net' for n in range(3)}", "BACKBONES must be a literal dict"),
        ("BACKBONES = ['net']", "BACKBONES must be a literal dict"),
        ("BACKBONES = {'net': 'Nett'}\nclass Net: pass", "unknown class or function 'Nett'; did you mean 'Net'?"),
        ("BACKBONES = {'net': 3}", "must be the name of a class or function, or a pair of that and a dict, not 3"),
        ("BACKBONES = {'my-net': 'Net'}\nclass Net: pass", "a name is made of letters, digits and underscores"),
    ],
)
def test_a_wrong_table_is_named_in_one_sentence_before_anything_starts(plugin, capsys, tmp_path, text, sentence):
    root = plugin({"backbones/net.py": text})
    assert main(["run", "student=net", "--runs", str(tmp_path / "runs")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line
    assert str(root / "backbones" / "net.py") in line


@pytest.mark.parametrize(
    ("table", "code", "sentence"),
    [
        ('{"mine": "Mine"}', "class Mine: pass", "'Mine' is not a subclass of kdbench.backbones.backbone.Backbone"),
        ('{"mine": "Mine"}', "Mine = 3", "'Mine' is neither a class nor a function"),
        ('{"mine": "Mine"}', "import nowhere\nclass Mine: pass", "cannot be imported: ModuleNotFoundError"),
        ('{"mine": ("Mine", {"deep": 8})}', NET, "BACKBONES['mine'] does not fit Mine"),
    ],
)
def test_a_wrong_class_is_named_when_it_is_built(plugin, table, code, sentence):
    root = plugin(backbone(table, code))
    with pytest.raises(UserError, match=re.escape(sentence)) as error:
        backbones.build("mine", 10)
    assert str(root / "backbones" / "net.py") in str(error.value)


@pytest.mark.parametrize(
    ("entry", "body", "kind", "sentence"),
    [
        ("'read'", "return 3", UserError, "the reader of 'mine' returns int, not Arrays"),
        ("'read'", "raise ValueError('labels must be small')", RunError, "fails: labels must be small"),
        ("('read', {'needs_folder': 1})", "pass", UserError, "'needs_folder' must be a bool, not 1"),
        ("('read', {'needs_foldr': True})", "pass", UserError, "unknown option 'needs_foldr'; did you mean"),
    ],
)
def test_a_wrong_reader_is_named_in_one_sentence(plugin, entry, body, kind, sentence):
    root = plugin({"readers/mine.py": f"READERS = {{'mine': {entry}}}\ndef read(source, folder):\n    {body}\n"})
    with pytest.raises(kind, match=re.escape(sentence)) as error:
        readers.read("mine", None)
    assert str(root / "readers" / "mine.py") in str(error.value)


def test_a_reader_that_needs_a_folder_gets_it(plugin, tmp_path):
    plugin(
        {
            "readers/mine.py": """
            import numpy as np
            from kdbench.data.readers.arrays import Arrays
            READERS = {"mine": ("read", {"needs_folder": True})}
            def read(source, folder):
                images, labels = np.zeros((2, 8, 8, 1), np.uint8), np.array([0, 1])
                return Arrays(images, labels, images, labels, (source, folder.name))
            """
        }
    )
    with pytest.raises(UserError, match="mine needs a data folder"):
        readers.check_folder("mine", None)
    assert readers.read("mine", tmp_path).classes == ("mine", tmp_path.name)


def test_a_launcher_of_a_plugin(plugin, tmp_path, capsys):
    plugin(
        {
            "launchers/recorder.py": '''
            """Writes down what it is asked to do, and does it in this process."""
            import json
            from kdbench.launch import local
            LAUNCHERS = {"recorder": "launch"}
            def launch(workload, report):
                workload.runs.mkdir(exist_ok=True)
                record = {"specs": [spec.id for spec in workload.specs], "rerun": workload.rerun}
                (workload.runs / "record.json").write_text(json.dumps(record))
                local.inline(workload.specs, workload.runs, workload.data, workload.rerun)
            '''
        }
    )
    runs = tmp_path / "runs"
    words = [
        "methods=ce",
        "dataset=digits",
        "Train.epochs=1",
        "Train.warmup=0",
        "Measures.corruptions=False",
        "Measures.images=10",
    ]
    assert main(["run", *words, "executor=recorder", "--runs", str(runs), "--rerun"]) == 0
    record = json.loads((runs / "record.json").read_text())
    assert record["rerun"]
    assert [json.loads(path.read_text())["run"] for path in runs.glob("*/result.json")] == record["specs"]
    capsys.readouterr()
    assert main(["run", *words, "executor=recordr", "--runs", str(runs)]) == 2
    assert "did you mean 'recorder'? Valid: inline, local, recorder, slurm" in capsys.readouterr().err
    assert main(["list", "launchers"]) == 0
    assert re.search(rf"^recorder +Writes down.* {tmp_path}/mine", capsys.readouterr().out, flags=re.MULTILINE)


def test_an_installed_package_offers_extensions(tmp_path, install):
    folder = tmp_path / "theirs" / "readers"
    folder.mkdir(parents=True)
    (folder / "their_format.py").write_text("READERS = {'their_data': 'read'}\ndef read(source, folder): return 3\n")
    install()
    extension = extensions.member("reader", "their_data")
    assert extension.origin == "package theirs"
    assert extensions.load(extension)("x", None) == 3


def test_names_are_read_without_torch(tmp_path):
    code = (
        "import sys; from kdbench.config import extensions, result_keys\n"
        "assert all(extensions.members(kind) for kind in extensions.KINDS) and result_keys.columns()\n"
        "print([name for name in ('torch', 'numpy', 'submitit') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_control_of_a_plugin(plugin, capsys):
    root = plugin(
        {"gin/control/kd_cold.gin": "# KD at temperature 1.\ninclude 'method/kd.gin'\nKD.temperature = 1.0\n"}
    )
    assert main(["show", "methods=kd_cold"]) == 0
    assert re.search(r"KD.temperature = 1.0 +# control/kd_cold.gin:3", capsys.readouterr().out)
    assert main(["list", "controls"]) == 0
    listed = capsys.readouterr().out
    assert re.search(rf"^kd_cold +KD at temperature 1\. +{root} *$", listed, flags=re.MULTILINE)
    assert re.search(r"^ce_smooth .*built in *$", listed, flags=re.MULTILINE)
    assert main(["list", "methods"]) == 0
    assert "kd_cold" not in capsys.readouterr().out
    plugin({"gin/method/kd_cold.gin": "include 'method/kd.gin'\n"})
    with pytest.raises(UserError, match="the method 'kd_cold' is defined twice"):
        places.members("method")
