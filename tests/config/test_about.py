"""The facts that a method file's docstring gives, and what is made of those that give none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdbench.config import about, bindings, places, signature
from kdbench.errors import UserError

TEXT = """\
Attention transfer: where the teacher looks.

Zagoruyko and Komodakis, "Paying more attention
to attention", ICLR 2017.

Further words about it.

Family: feature
Base: kd
Loss: CE + β · Σ ‖A − Aᵗ‖²
Source: RepDistiller
Source: the authors' code
Choice: `power` is 2; the paper also
    has 1
Fault: NaN at zero maps;
  here 0
"""

CLASS = """
from kdbench.method import Method


class {}(Method):
    weight: float

    def losses(self, batch):
        return {{"a": self.teachers[0].exits(batch.images), "b": self.student.run_from(1, batch.images)}}
"""


def test_every_entry_of_a_docstring():
    assert about.of_docstring(TEXT) == about.About(
        title="Attention transfer: where the teacher looks.",
        paper='Zagoruyko and Komodakis, "Paying more attention to attention", ICLR 2017.',
        family="feature",
        loss="CE + β · Σ ‖A − Aᵗ‖²",
        sources=("RepDistiller", "the authors' code"),
        choices=("`power` is 2; the paper also has 1",),
        faults=("NaN at zero maps; here 0",),
        base="kd",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("", "", "other", "")),
        ("A title", ("A title", "", "other", "")),
        ("A title\n\nFamily:", ("A title", "", "other", "")),
        ("A title\n\nFamily: two words\nLoss:\n", ("A title", "", "other", "")),
        ("A title\n\nFamily:\n    relation\nLoss:\n    CE\n    + KD", ("A title", "", "relation", "CE + KD")),
        ("A title\nFamily: self\nNot an entry: x\n    nor this", ("A title", "Not an entry: x nor this", "self", "")),
        ("A title\n\n family: self\nfamily: self", ("A title", "family: self family: self", "other", "")),
        ("Family: self", ("Family: self", "", "other", "")),
        ("A title\n\nLoss: CE\n\n    a code block\n", ("A title", "a code block", "other", "CE")),
    ],
)
def test_docstrings_with_something_missing_or_misplaced(text, expected):
    facts = about.of_docstring(text)
    assert (facts.title, facts.paper, facts.family, facts.loss) == expected


@given(st.lists(st.sampled_from([*(f"{name}: x" for name in about.ENTRIES), "    y", "", "z", ":", "Family: a/b"])))
def test_any_order_of_lines_has_facts(lines):
    facts = about.of_docstring("\n".join(lines))
    assert places.is_name(facts.family)
    assert all(facts.sources + facts.choices + facts.faults)


@pytest.fixture
def plugin(tmp_path, monkeypatch, own_plugins):
    """Writes a method `mine` with a docstring into a plug-in folder."""

    def write(docstring: str, name: str = "mine") -> None:
        for folder in ("methods", "gin/method"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "methods" / f"{name}.py").write_text(f"{docstring}\n{CLASS.format(name.title())}")
        (tmp_path / "gin" / "method" / f"{name}.gin").write_text(f"{name.title()}.weight = 1.0  # mine # indeed\n")
        monkeypatch.setenv("KDBENCH_PLUGINS", str(tmp_path))
        places.add_plugins([])
        signature.of_method.cache_clear()

    return write


def test_a_method_without_entries_is_of_the_family_other(plugin):
    plugin('"""A title."""')
    plugin("", "bare")
    assert about.of_method("mine").family == about.of_method("bare").family == "other"
    assert about.families(["kd", "mine", "bare", "ce"]) == {"label": ["ce"], "logit": ["kd"], "other": ["bare", "mine"]}
    assert about.of_family("family/other", ["mine", "kd"]) == ["mine"]
    assert about.needs("mine") == ["branches", "exits of the teacher"]
    assert about.test_of("mine") is None
    assert about.comments("mine") == {"method/mine.gin:1": "mine # indeed"}


def test_users_may_have_families_of_their_own(plugin):
    plugin('"""A title.\n\nFamily: graph\n"""')
    assert [*about.families(["mine", "kd"])] == ["logit", "graph"]
    with pytest.raises(UserError, match="unknown family of methods 'grap'; did you mean 'graph'"):
        about.of_family("family/grap", ["mine", "kd"])


@pytest.mark.parametrize("name", sorted(places.sources()))
def test_every_method_of_kdbench_has_its_facts(name):
    facts = about.of_method(name)
    assert facts.family in about.FAMILIES
    assert facts.loss
    assert ": " in facts.title
    assert any(year in facts.paper for year in map(str, range(2010, 2030)))
    assert (places.own_root() / about.test_of(name)).is_file()
    assert about.passes(name) >= 1


def test_a_variant_has_the_facts_of_its_class_and_comments_of_both_files():
    assert about.of_method("born_again") == about.of_method("kd")
    comments = about.comments("deep_supervision")
    origins = {key: binding.origin for key, binding in bindings.of_method("deep_supervision").items()}
    assert comments[origins["BYOT.alpha"]] == "no soft targets; the cross-entropies then have weight 1"
    assert comments[origins["BYOT.temperature"]] == "authors' code"


def test_the_base_of_a_variant_is_the_method_that_it_includes_and_that_of_others_is_in_the_docstring(plugin):
    bases = {"born_again": "kd", "deep_supervision": "byot", "ls_dkd": "dkd", "ls_kd": "kd", "kd": "", "ce": ""}
    assert {name: about.base(name) for name in bases} == bases
    plugin('"""A title.\n\nBase: two words\n"""')
    plugin('"""A title.', "broken")
    assert [about.base(name) for name in ("mine", "broken", "nobody_s")] == ["", "", ""]


@pytest.mark.parametrize("name", sorted(places.sources()))
def test_the_base_of_a_method_of_kdbench_is_a_method(name):
    assert about.base(name) in ("", *places.members("method"))


def test_what_methods_ask_of_the_networks():
    assert about.needs("ce") == []
    assert about.needs("kd") == ["a teacher"]
    assert about.needs("crd") == ["a teacher", "pooled features"]
    assert about.needs("byot") == ["stage maps", "pooled features"]


@pytest.mark.parametrize(
    ("name", "passes"), [("ce", 1), ("cs_kd", 2), ("mixskd", 2), ("kdcl", 1), ("sla_sd", 4), ("hsakd", 4), ("bake", 4)]
)
def test_passes_are_those_through_the_student(name, passes):
    assert about.passes(name) == passes
