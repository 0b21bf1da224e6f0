"""kdbench show and kdbench list methods: what a method is."""

from __future__ import annotations

import re

from kdbench.cli.main import main
from kdbench.config import about, places


def test_show_prints_the_facts_about_a_method_before_its_values(capsys):
    assert main(["show", "methods=crd,corsd_no_ranking"]) == 0
    shown = capsys.readouterr().out
    crd, corsd = re.split(r"^# methods=", shown, flags=re.MULTILINE)[1:]
    for line in (
        "# family: relation",
        '# paper: Tian, Krishnan and Isola, "Contrastive representation distillation", ICLR 2020.',
        f"# loss: {about.of_method('crd').loss}",
        "# needs: a teacher, pooled features",
        "# source: RepDistiller",
        "# test: tests/methods/test_crd.py",
    ):
        assert line in crd.splitlines()
    assert crd.count("# fault: ") == len(about.of_method("crd").faults)
    assert re.search(r"^CRD.embedding_dim = 128 +# method/crd.gin:\d+: RepDistiller, CIFAR-100$", crd, flags=re.M)
    assert "# choice: `detach_deepest` is True" in corsd, "a variant's facts are those of its class"
    assert re.search(r"^CORSD.ranking_weight = 0.0 +# control/corsd_no_ranking.gin:4$", corsd, flags=re.MULTILINE)
    assert crd.index("# test: ") < crd.index("CRD.contrast_weight")


def test_a_value_of_the_command_line_has_no_comment_of_the_file(capsys):
    assert main(["show", "methods=crd", "CRD.negatives=64"]) == 0
    assert re.search(r"^CRD.negatives = 64 +# command line$", capsys.readouterr().out, flags=re.MULTILINE)


def test_list_groups_methods_by_family(capsys):
    assert main(["list", "methods"]) == 0
    lines = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    listed = [name for name in places.members("method") if name not in places.members("control")]
    families = about.families(listed)
    assert lines == [word for family, names in families.items() for word in (f"family/{family}", *names)]
    assert {name for name in lines if "/" not in name} >= set(places.sources())
