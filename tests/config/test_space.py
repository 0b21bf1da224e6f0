"""The search spaces of gin files: what is refused, what variants inherit, and that no run depends on them."""

import pytest

from kdbench.config import bindings, places, resolve
from kdbench.config.space import Dimension
from kdbench.errors import UserError
from kdbench.plan import expand, request


def variant(folder, monkeypatch, **files):
    """gin/method/NAME.gin for each name in a folder of the user's, read anew."""
    for name, text in files.items():
        path = folder / "gin" / "method" / f"{name}.gin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    monkeypatch.setenv("KDBENCH_PLUGINS", str(folder))
    places.add_plugins([])
    bindings._method_file.cache_clear()


@pytest.fixture(autouse=True)
def forget_plugins():
    yield
    for cached in (places.roots, places.members, places.sources, bindings._method_file):
        cached.cache_clear()


@pytest.mark.parametrize("name", sorted(places.members("method")))
def test_a_space_is_no_part_of_a_configuration(name):
    resolved = resolve.resolve(name, "digits", "quick")
    assert not [key for key in (*resolved.shared, *resolved.own, *resolved.machine) if key.startswith("Search")]
    assert "Search" not in resolved.text()
    if not bindings.is_variant(name):
        assert 1 <= len(bindings.search_space(name)) <= 4


def test_the_id_of_a_run_does_not_depend_on_the_space(tmp_path, monkeypatch):
    identities = []
    for space in (
        "",
        "Search.space = {'temperature': ('log', 1, 2)}",
        "Search.space = {'kd_weight': ('linear', 0, 1)}",
    ):
        variant(tmp_path, monkeypatch, kd_x=f"include 'method/kd.gin'\nKD.ce_weight = 0.2\n{space}")
        spec = expand.plan(request.parse(["methods=kd_x"]))[-1]
        identities.append((spec.id, spec.protocol, spec.values, spec.config))
    assert len(set(identities)) == 1


def test_kinds_are_read_in_the_parameters_own_type(tmp_path, monkeypatch):
    space = "{'temperature': ('log', 1, %most), 'negatives': ('int', 16, 64), 'momentum': ('choice', 0.5, 0.9)}"
    variant(tmp_path, monkeypatch, crd_x=f"include 'method/crd.gin'\nmost = 2\nSearch.space = {space}")
    assert bindings.search_space("crd_x") == {
        "temperature": Dimension("log", (1.0, 2.0)),
        "negatives": Dimension("int", (16, 64)),
        "momentum": Dimension("choice", (0.5, 0.9)),
    }


def test_a_variant_inherits_the_space_less_what_it_binds_itself(tmp_path, monkeypatch):
    variant(
        tmp_path,
        monkeypatch,
        kd_hot="include 'method/kd.gin'\nKD.temperature = 8.0",
        kd_hotter="include 'method/kd_hot.gin'\nSearch.space = {'temperature': ('linear', 8.0, 16.0)}",
        kd_last="include 'method/kd_hotter.gin'\nKD.ce_weight = 0.0",
    )
    assert list(bindings.search_space("kd_hot")) == ["kd_weight"]
    assert bindings.search_space("kd_hotter") == {"temperature": Dimension("linear", (8.0, 16.0))}
    assert bindings.search_space("kd_last") == bindings.search_space("kd_hotter")


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        ("{'temprature': ('log', 1, 2)}", "unknown parameter of BYOT 'temprature'; did you mean 'temperature'?"),
        ("{'alpha': ('lgo', 1, 2)}", "Search.space['alpha']: unknown kind of search 'lgo'; did you mean 'log'?"),
        ("{'alpha': ('linear', 1.0, 0.5)}", "the lower bound 1.0 is not below the upper bound 0.5"),
        ("{'alpha': ('linear', 0.5, 0.5)}", "the lower bound 0.5 is not below"),
        ("{'alpha': ('log', 0, 0.5)}", "the lower bound of 'log' must be above 0, not 0.0"),
        ("{'alpha': ('linear', 0.5)}", "'linear' takes two numbers, the lower and the upper bound, not (0.5,)"),
        ("{'alpha': ('linear', 'a', 1)}", "'linear' takes two numbers"),
        ("{'alpha': ('int', 0.5, 2)}", "'int' takes two integers"),
        ("{'hint_reduction': ('choice', 'sum', 'maen')}", "not 'maen'; did you mean 'mean'?"),
        ("{'hint_reduction': ('linear', 0, 1)}", "the parameter takes 'sum' or 'mean', not 0.0"),
        ("{'hint_reduction': ('choice', 'sum')}", "a choice takes at least two options, all different"),
        ("{'hint_reduction': ('choice', 'sum', 'sum')}", "a choice takes at least two options, all different"),
        ("{'alpha': 0.5}", "takes a kind and its options, such as ('linear', 0.0, 1.0), not 0.5"),
        ("{'alpha': ()}", "takes a kind and its options"),
        ("3", "Search.space takes a dict such as {'temperature': ('log', 1.0, 16.0)}, not 3"),
        ("{'alpha': ('linear', %low, 1)}", "unknown macro 'low'"),
    ],
)
def test_a_wrong_space_is_refused_when_it_is_read(tmp_path, monkeypatch, space, sentence):
    variant(tmp_path, monkeypatch, byot_x=f"include 'method/byot.gin'\nSearch.space = {space}")
    with pytest.raises(UserError) as caught:
        expand.plan(request.parse(["methods=byot_x"]))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_whole_numbers_do_not_take_fractions(tmp_path, monkeypatch):
    variant(tmp_path, monkeypatch, crd_x="include 'method/crd.gin'\nSearch.space = {'negatives': ('log', 1, 9)}")
    with pytest.raises(UserError, match=r"the parameter takes an integer such as 10, not 1\.0"):
        bindings.search_space("crd_x")


def test_only_a_methods_file_declares_a_space():
    with pytest.raises(UserError, match=r"Search\.\* can be bound in a method's gin file only"):
        bindings.of_command_line(["Search.space={'alpha': ('linear', 0, 1)}"])


def test_chosen_numbers_have_three_digits_and_stay_within_the_bounds():
    dimension = Dimension("linear", (0.12345, 0.98765))
    assert dimension.rounded(0.4567891) == 0.457
    assert dimension.rounded(0.123456) == 0.12345
    assert dimension.rounded(0.987649) == 0.98765
    assert Dimension("int", (1, 20000)).rounded(16385) == 16385
