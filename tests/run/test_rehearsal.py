"""Networks that a method refuses in `setup` are reported before anything starts, in a dry run too."""

from __future__ import annotations

import random

import pytest
import torch

from kdbench import api
from kdbench.cli.main import main
from kdbench.config import places
from kdbench.errors import UserError
from kdbench.launch import inputs
from kdbench.plan import expand, request
from kdbench.run.rehearsal import Rehearsal

METHOD = """
from torch import nn

from kdbench.method import Method, RunError


class {name}(Method):
    needs_teacher = {needs_teacher}
    limit: int

    def setup(self):
        self.adapter = nn.Linear(self.student.fc.in_features, 3)
        {setup}

    def losses(self, batch):
        return {{"ce": self.cross_entropy(self.student(batch.images), batch.labels)}}
"""
SETUPS = {
    "narrow": (
        "ours, theirs = (self.stage_shapes(n)[-1][0] for n in (self.student, self.teacher))\n"
        "        if ours != theirs:\n"
        "            raise RunError(f'narrow needs equal widths, not {ours} and {theirs}')"
    ),
    "large": "if self.stage_shapes()[-1][1] < self.limit:\n            raise RunError(f'large needs maps of {self.limit} pixels')",
    "strict": "if self.teachers[0].method is None:\n            raise RunError('strict needs a teacher with exits')",
    "values": "if float(self.adapter.weight.sum()) < 9:\n            raise RunError('never')",
    "wrong": "self.nothing.there\n        raise RunError('never')",
}
PLAN = ["dataset=digits", "student=resnet8"]


@pytest.fixture
def plugin(tmp_path, own_plugins):
    """A plug-in folder with a method for each of `SETUPS`."""
    for name, setup in SETUPS.items():
        text = METHOD.format(name=name.title(), needs_teacher=name != "large", setup=setup)
        for file, content in {
            f"methods/{name}.py": text,
            f"gin/method/{name}.gin": f"{name.title()}.limit = 2\n",
        }.items():
            path = tmp_path / "plugin" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    (tmp_path / "plugin/gin/method/narrow_too.gin").write_text("include 'method/narrow.gin'\nNarrow.limit = 3\n")
    places.add_plugins([str(tmp_path / "plugin")])
    return tmp_path


def refused(runs, *words):
    """The sentence with which a dry run ends; "" if it does not refuse anything."""
    specs = expand.plan(request.parse([*words, *PLAN]))
    try:
        inputs.check(specs, runs, None, dry_run=True)
    except UserError as error:
        return str(error)
    return ""


def test_a_pair_is_refused_by_the_method_s_own_sentence(plugin, capsys):
    assert refused(plugin, "methods=narrow", "teacher=resnet14") == ""
    sentence = "narrow needs equal widths, not 64 and 256"
    assert refused(plugin, "methods=narrow", "seeds=0-3", "teacher=resnet8x4") == sentence
    for dry in ([], ["--dry-run"]):
        words = ["run", "methods=narrow", "teacher=resnet8x4", *PLAN, *dry, "--runs", str(plugin / "runs")]
        assert main(words) == 2
        assert capsys.readouterr().err == f"kdbench: {sentence}\n"
    assert not (plugin / "runs").exists()
    with pytest.raises(UserError, match=sentence):
        api.plan("methods=narrow teacher=resnet8x4 dataset=digits student=resnet8", runs=plugin / "runs").run()


def test_of_many_methods_each_that_does_not_fit_is_named_once(plugin):
    sentence = refused(
        plugin, "methods=ce,kd,narrow,narrow_too", "seeds=0,1", "recipe=quick,standard", "teacher=resnet8x4"
    )
    assert sentence == (
        "2 of 4 methods cannot be trained with these networks; leave them out with -narrow,-narrow_too at the end of methods=. "
        "narrow on resnet8: narrow needs equal widths, not 64 and 256. "
        "narrow_too on resnet8: narrow needs equal widths, not 64 and 256"
    )
    assert refused(plugin, "methods=ce,kd,narrow,narrow_too,-narrow,-narrow_too", "teacher=resnet8x4") == ""
    assert "1 of 2 methods cannot be trained with these networks; leave it out with -narrow " in refused(
        plugin, "methods=kd,narrow", "teacher=resnet14,resnet8x4"
    )


def test_a_shared_check_refuses_as_a_raise_in_the_file_does(tmp_path):
    sentence = refused(tmp_path, "methods=ab,ofd,reviewkd,kd", "teacher=vit_tiny")
    assert sentence.startswith(
        "3 of 4 methods cannot be trained with these networks; leave them out with -ab,-ofd,-reviewkd"
    )
    assert sentence.count("which VisionTransformer does not offer") == 3


def test_parameters_and_the_size_of_images_count(plugin):
    assert refused(plugin, "methods=large") == ""
    assert refused(plugin, "methods=large", "Large.limit=3") == "large needs maps of 3 pixels"
    assert refused(plugin, "methods=large", "Large.limit=2,3") == "large needs maps of 3 pixels"


def test_images_that_are_not_at_hand_are_taken_to_be_large(plugin):
    words = ["dataset=cifar100", "student=resnet8", "teacher=resnet8x4"]
    for method, sentence in (("large", None), ("narrow", "narrow needs equal widths, not 64 and 256")):
        limit = ["Large.limit=16"] if method == "large" else []
        specs = expand.plan(request.parse([f"methods={method}", *words[: 2 if method == "large" else 3], *limit]))
        assert Rehearsal(specs, plugin, None).refusal(specs[-1]) == sentence


def test_the_method_of_a_teacher_is_there_if_it_has_trained_more_than_the_network(plugin):
    (plugin / "plugin/gin/method/taught.gin").write_text("include 'method/strict.gin'\nTeaching.method = 'byot'\n")
    places.add_plugins([])
    assert refused(plugin, "methods=taught", "teacher=resnet14") == ""
    assert refused(plugin, "methods=strict", "teacher=resnet14") == "strict needs a teacher with exits"


def test_a_finished_run_and_a_weight_file_teach(plugin):
    run = ["methods=ce", "dataset=digits", "student=resnet8x4", "Train.epochs=2", "Train.warmup=0"]
    measures = ["Measures.corruptions=False", "Measures.noise=()", "Measures.images=10"]
    assert main(["run", *run, *measures, "--runs", str(plugin / "runs")]) == 0
    (folder,) = (plugin / "runs").glob("ce-*")
    assert main(["weights", str(folder), "--to", str(plugin / "w.safetensors")]) == 0
    for teacher in (folder, plugin / "w.safetensors"):
        words = ["run", "methods=narrow", f"teacher={teacher}", *PLAN, "--dry-run", "--runs", str(plugin / "runs")]
        assert main(words) == 2


@pytest.mark.parametrize("name", ["values", "wrong"])
def test_other_errors_are_left_for_the_run(plugin, name):
    assert refused(plugin, f"methods={name}", "teacher=resnet14") == ""


def test_teachers_that_cannot_be_read_are_left_for_others_to_report(plugin):
    (plugin / "w.pt").write_bytes(b"no weights")
    (spec,) = expand.plan(request.parse(["methods=strict", f"teacher={plugin}/w.pt", *PLAN]))
    assert Rehearsal([spec], plugin, None).refusal(spec) is None


def test_nothing_is_built_for_methods_that_do_not_refuse(tmp_path, monkeypatch):
    monkeypatch.setattr(Rehearsal, "refusal", lambda *_: 1 / 0)
    assert refused(tmp_path, "methods=ce,byot,corsd,crd,kd,rkd") == ""


def test_a_rehearsal_leaves_the_random_generators_alone(plugin):
    before = torch.get_rng_state(), random.getstate()
    assert refused(plugin, "methods=narrow", "teacher=resnet14") == ""
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
