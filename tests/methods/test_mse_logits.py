import pytest
import torch

from kdbench.methods.mse_logits import logits_error


@pytest.mark.parametrize(("name", "error"), [("mse_logits", "squared"), ("smooth_l1_logits", "smooth_l1")])
def test_the_term_is_the_reference(reference, terms_of_logits, name, error):
    case = reference(name)
    terms = terms_of_logits("mse_logits", case.student["student_logits"], case.fixed["teacher_logits"], error=error)
    assert [*terms] == ["logits"]
    case.check(terms["logits"])


def test_by_hand_on_four_images():
    z = torch.tensor([[0.0, 0.5], [3.0, 0.0], [1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    t = torch.zeros(4, 2, dtype=torch.float64)
    assert logits_error(z, t, "squared").item() == pytest.approx((0.25 + 9 + 1 + 1) / 8)
    assert logits_error(z, t, "smooth_l1").item() == pytest.approx((0.125 + 2.5 + 0.5 + 0.5) / 8)


@pytest.mark.parametrize("error", ["squared", "smooth_l1"])
def test_offsets_matter_and_labels_and_the_order_of_the_images_do_not(logits, terms_of_logits, error):
    z, t, labels = logits()
    loss = terms_of_logits("mse_logits", z, t, labels, error=error)["logits"]
    assert terms_of_logits("mse_logits", z.flip(0), t.flip(0), error=error)["logits"].item() == pytest.approx(
        loss.item()
    )
    assert terms_of_logits("mse_logits", z + 3, t, labels, error=error)["logits"] != loss
    assert terms_of_logits("mse_logits", t, t, labels, error=error)["logits"] == 0


@pytest.mark.parametrize(("student", "teacher"), [("resnet8", "resnet8x4"), ("wrn_16_1", "shufflenetv2_x0_5")])
def test_the_logits_are_those_of_the_networks(make, batch, student, teacher):
    method = make("mse_logits", student=student, teacher=teacher).eval()
    one = batch(method)
    z, t = method.student(one.images), method.teacher(one.images)
    assert method.losses(one)["logits"].item() == pytest.approx((z - t).square().mean().item(), rel=1e-5)
