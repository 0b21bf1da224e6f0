"""The user's own files of a run, from plug-in folders like a user's."""

import pytest

from kdbench.config import places
from kdbench.plan import expand, own_files, request

pytestmark = pytest.mark.usefixtures("own_plugins")

METHOD = """
from kdbench.method import Method
from kdbench.methods.order_helper import scaled


class Order(Method):
    weight: float

    def losses(self, batch):
        return {"ce": scaled(self.cross_entropy(self.student(batch.images), batch.labels), self.weight)}
"""
FILES = {
    "methods/order.py": METHOD,
    "methods/order_helper.py": "def scaled(x, weight):\n    return weight * x\n",
    "methods/unused.py": METHOD,
    "gin/method/order.gin": "Order.weight = 0.5\n",
    "gin/method/order_more.gin": "include 'method/order.gin'\nOrder.weight = 2.0\n",
    "gin/recipe/mine.gin": "include 'recipe/quick.gin'\n",
    "backbones/net.py": (
        "from kdbench.backbones.cifar_resnet import CifarResNet\n\n"
        "class Net(CifarResNet):\n    pass\n\nBACKBONES = {'mine8': ('Net', {'depth': 8, 'widths': (8, 8, 8, 8)})}\n"
    ),
}


def the_run(*words):
    (spec,) = [spec for spec in expand.plan(request.parse(["dataset=digits", *words])) if not spec.is_teacher]
    return spec


@pytest.fixture
def root(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / "mykd" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    places.add_plugins([str(tmp_path / "mykd")])
    return tmp_path / "mykd"


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["methods=kd"], set()),
        (["methods=order"], {"methods/order.py", "methods/order_helper.py", "gin/method/order.gin"}),
        (
            ["methods=order_more"],
            {
                *("methods/order.py", "methods/order_helper.py"),
                *("gin/method/order.gin", "gin/method/order_more.gin"),
            },
        ),
        (["methods=ce", "recipe=mine", "student=mine8"], {"gin/recipe/mine.gin", "backbones/net.py"}),
        (["methods=kd", "teacher=mine8"], {"backbones/net.py"}),
    ],
)
def test_they_are_all_that_a_run_is_made_with_and_nothing_else(root, words, names):
    files = own_files.of_run(the_run(*words))
    assert set(files) == names
    assert all(path == (root / name).resolve() for name, path in files.items())
    assert own_files.need_plugins(files.values()) is bool(names)


def test_a_file_that_is_gone_is_left_out(root):
    spec = the_run("methods=order", "recipe=mine")
    (root / "gin/recipe/mine.gin").unlink()
    (root / "methods/order_helper.py").unlink()
    places.add_plugins([])
    assert set(own_files.of_run(spec)) == {"methods/order.py", "gin/method/order.gin"}
