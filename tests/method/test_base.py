"""What every method must keep, whatever it computes."""

import pytest
import torch
from examples import each_method

from kdbench.config import places, signature
from kdbench.method import Method, RunError

NAMES = sorted(places.sources())
WITH_TEACHER = [name for name in NAMES if signature.of_method(name).attributes.get("needs_teacher")]


@pytest.mark.parametrize("name", each_method(NAMES))
def test_the_gin_file_binds_every_parameter_and_nothing_else(make, gin_parameters, name):
    method = make(name)
    assert gin_parameters(name).keys() == method.fields().keys()


@pytest.mark.parametrize("name", each_method(WITH_TEACHER))
def test_the_teacher_is_frozen(make, batch, name):
    method = make(name)
    before = {n: value.clone() for n, value in method.teacher.state_dict().items()}
    method.train()
    sum(method.losses(batch(method)).values()).backward()
    assert not any(module.training for module in method.teacher.modules())
    assert all(p.grad is None and not p.requires_grad for p in method.teacher.parameters())
    assert all(torch.equal(value, before[n]) for n, value in method.teacher.state_dict().items())


def test_no_graph_is_built_through_the_teacher(make):
    taught = make("kd").teach_images(torch.zeros(2, 1, 8, 8, requires_grad=True))
    assert not any(x.requires_grad for x in (taught.logits, taught.pooled, *taught.stages))


@pytest.mark.parametrize("name", each_method(WITH_TEACHER))
def test_the_teacher_is_neither_trained_nor_saved(make, name):
    method = make(name)
    ours = {id(p) for p in method.parameters()}
    assert not any(id(p) in ours for p in method.teacher.parameters())
    saved = {value.data_ptr() for value in method.state_dict().values()}
    assert not any(value.data_ptr() in saved for value in method.teacher.state_dict().values())


@pytest.mark.parametrize("name", each_method(WITH_TEACHER))
def test_the_teacher_matters(make, batch, name):
    """The same student and batch with another teacher gives another loss."""
    one, other = make(name, teacher="resnet14"), make(name, teacher="resnet20")
    drawn = batch(one, progress=0.5)
    first, second = (
        sum(sum((phase.losses or method.losses)(drawn).values()).item() for phase in method.phases())
        for method in (one, other)
    )
    assert first != pytest.approx(second, rel=1e-4)


@pytest.mark.parametrize("name", each_method(WITH_TEACHER))
def test_a_missing_teacher_is_refused(make, gin_parameters, name):
    method = make(name)
    with pytest.raises(ValueError, match="needs a teacher"):
        type(method)(method.student, [], method.info, **gin_parameters(name))


@pytest.mark.parametrize("name", each_method(name for name in NAMES if name != "simkd"))
def test_the_deployed_network_is_the_student(make, name):
    method = make(name)
    deployed = method.deployed()
    if type(method).deployed is Method.deployed:
        assert [p.shape for p in deployed.parameters()] == [p.shape for p in method.student.parameters()]
    assert deployed(torch.zeros(2, 1, 8, 8)).shape == (2, 4)


@pytest.mark.parametrize("name", each_method(NAMES))
def test_training_goes_on_from_saved_state(make, batch, name):
    first = make(name)
    sum(first.losses(batch(first)).values()).backward()  # moves buffers
    second = make(name)
    second.load_state_dict({n: value.clone() for n, value in first.state_dict().items()})
    later = batch(first, step=1)
    expected = {n: loss.item() for n, loss in first.losses(later).items()}
    assert {n: loss.item() for n, loss in second.losses(later).items()} == expected


SMOOTHED = [name for name in NAMES if "cross_entropy" in places.sources()[name].read_text()]


@pytest.mark.parametrize(
    "name", each_method(name for name in SMOOTHED if name != "label_smoothing")
)  # which has its own in its place
def test_label_smoothing_of_the_recipe_is_applied(make, batch, name):
    plain, smooth = make(name), make(name, label_smoothing=0.3)
    # Labels may come in late, as in a second phase.
    one, last = batch(plain, progress=0.99), plain.phases()[-1].losses
    ours, theirs = (method.losses(one) if last is None else last.__func__(method, one) for method in (plain, smooth))
    if ours["ce"].item() or name != "dgkd":  # which gives the labels no weight by default
        assert ours["ce"].item() != pytest.approx(theirs["ce"].item(), rel=1e-4)


def test_the_base_class_samples_the_anchors_alone(make):
    method = make("ce")
    anchors = torch.tensor([3, 1, 2])
    assert torch.equal(method.sample(anchors, None), anchors)
    assert method.exits(torch.zeros(1, 1, 8, 8)) == {}
    with pytest.raises(NotImplementedError):
        Method(method.student, [], method.info).losses(None)


@pytest.mark.parametrize("name", ["peers", "teacher", "training", "update"])
def test_a_field_may_not_take_the_name_of_what_every_method_has(make, name):
    ce = make("ce")
    cls = type("Own", (Method,), {"__annotations__": {name: float}})
    assert cls.fields() == {name: float}
    with pytest.raises(ValueError, match=f"the field '{name}' of Own has a name that every method uses itself"):
        cls(ce.student, [], ce.info, **{name: 1.0})


@pytest.mark.parametrize(("name", "part"), [("ft", "paraphraser"), ("sskd", "head")])
def test_a_student_that_is_its_teacher_has_its_weights_and_architecture(make, name, part):
    method = make(name, student="resnet14", teacher="resnet14", part=part)
    ours, theirs = method.student.state_dict(), method.teacher.state_dict()
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())
    assert not any(p.requires_grad for p in method.student.parameters())
    with pytest.raises(RunError, match="makes the student its teacher here, and they differ"):
        make(name, student="resnet8", teacher="resnet14", part=part)
