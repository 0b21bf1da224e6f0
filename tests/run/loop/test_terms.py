"""Mistakes in what `losses` returns: one sentence with the term, the file and the line of the user's own code."""

import re

import pytest
import torch

from kdbench.errors import RunError
from kdbench.run.loop import terms


def line_of(function, part):
    import inspect

    lines, first = inspect.getsourcelines(function)
    return first + next(number for number, line in enumerate(lines) if part in line)


def returning(small, value):
    class Odd(small.Plain):
        def losses(self, batch):
            (ce,) = super().losses(batch).values()
            return value(ce)

    return Odd


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (
            lambda ce: None,
            "must return a dict of named terms, such as {'ce': …}, and returned NoneType; is there a return?",
        ),
        (lambda ce: ce, "must return a dict of named terms, such as {'ce': …}, and returned a tensor of shape ()"),
        (lambda ce: (ce, {}), "and returned tuple"),
        (lambda ce: {}, "must return at least one term, and returned an empty dict"),
        (lambda ce: {1: ce}, "must name its terms by strings, not 1"),
        (lambda ce: {"ce": ce, "x": 0.5}, "returned a float as the term 'x', which must be a tensor"),
        (lambda ce: {"x": ce.repeat(4)}, "returned a tensor of shape (4,) as the term 'x', which must be a scalar"),
        (
            lambda ce: {"ce": ce, "x": torch.tensor(3)},
            "returned a tensor of int64 as the term 'x', which must be of a float",
        ),
        (lambda ce: {"ce": ce, "x": torch.zeros((), device="meta")}, "returned a tensor on meta as the term 'x'"),
        (lambda ce: {"ce": ce.detach()}, "returned terms without a gradient ('ce')"),
    ],
)
def test_a_mistake_is_named_with_its_place(small, tmp_path, value, sentence):
    method = returning(small, value)
    with pytest.raises(RunError, match=re.escape(sentence)) as error:
        small.trained(tmp_path, method)
    assert str(error.value).startswith("Odd.losses ")
    assert str(error.value).endswith(f"test_terms.py:{line_of(method.losses, 'return value')})")


def test_the_line_is_that_of_the_term_where_it_is_written(small, tmp_path):
    class Odd(small.Plain):
        def losses(self, batch):
            named = super().losses(batch)
            named["far"] = batch.images.mean(dim=(1, 2, 3))
            return named

    with pytest.raises(RunError, match=rf"test_terms.py:{line_of(Odd.losses, 'far')}\)"):
        small.trained(tmp_path, Odd)


def test_a_loss_that_reaches_nothing_that_is_trained_is_refused(small, tmp_path):
    class Odd(small.Plain):
        def losses(self, batch):
            super().losses(batch)
            return {"x": batch.images.clone().requires_grad_().mean()}

    with pytest.raises(RunError, match="terms that do not depend on anything that is trained"):
        small.trained(tmp_path, Odd)


def test_a_term_may_lack_a_gradient_if_another_has_one(small, tmp_path):
    small.trained(tmp_path, returning(small, lambda ce: {"ce": ce, "log": ce.detach() * 0}), epochs=1.0)


def test_a_method_with_an_update_of_its_own_decides_about_gradients(small):
    class Odd(small.Plain):
        def losses(self, batch):
            return {"x": torch.zeros(())}

        def update(self, terms, update):
            pass

    method = small.built(Odd, small.task())
    assert terms.checked(method.losses, method)(None)["x"] == 0


@pytest.mark.parametrize(
    ("first_bad", "advice", "other"), [(0, "a logarithm of 0, a division by 0", "SGD.lr"), (1, "SGD.lr", "a logarithm")]
)
def test_a_loss_that_is_nan_at_once_gets_other_advice_than_one_that_becomes_it(
    small, tmp_path, first_bad, advice, other
):
    class Odd(small.Plain):
        def losses(self, batch):
            bad = torch.tensor(float("nan") if batch.step >= first_bad else 0.0)
            return {**super().losses(batch), "bad": bad}

    with pytest.raises(RunError, match=r"the loss is not finite at step \d+ \(term bad\); ") as error:
        small.trained(tmp_path, Odd)
    assert advice in str(error.value)
    assert other not in str(error.value)
    assert ("test_terms.py:" in str(error.value)) == (first_bad == 0)
