import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kdbench.methods.crd import contrast_loss, last_of_each, log_scores, moved_entries, normaliser

BUFFERS = {"student_bank", "teacher_bank", "student_z", "teacher_z"}


def test_the_first_step_is_the_reference(reference):
    case = reference("crd_first_step")
    student, teacher = case.student["student_embedding"], case.student["teacher_embedding"]
    index, images, temperature = case.fixed["contrast_index"], case.params["n_data"], case.params["temperature"]
    assert case.params["eps"] == 1e-7

    from_student = log_scores(student, case.fixed["teacher_bank"], index, temperature)
    from_teacher = log_scores(teacher, case.fixed["student_bank"], index, temperature)
    parts = {"Z_student": normaliser(from_student, images), "Z_teacher": normaliser(from_teacher, images)}
    parts["student_anchored"] = contrast_loss(from_student, parts["Z_student"], images)
    parts["teacher_anchored"] = contrast_loss(from_teacher, parts["Z_teacher"], images)
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(case.entry["parts"], rel=1e-6)
    case.check(parts["student_anchored"] + parts["teacher_anchored"])

    places = case.fixed["index"]
    for name, embedding in (("student_bank", student), ("teacher_bank", teacher)):
        bank = case.fixed[name]
        bank.index_copy_(0, places, moved_entries(bank[places], embedding, case.params["momentum"]))
        expected = torch.tensor(case.entry["bank_after"][name], dtype=torch.float64)
        torch.testing.assert_close(bank, expected, rtol=1e-6, atol=1e-9)
        assert not bank.requires_grad


def random_case(batch=9, images=50, negatives=30, dim=5):
    generator = torch.Generator().manual_seed(4)
    embedding = F.normalize(torch.randn(batch, dim, generator=generator, dtype=torch.float64), dim=1)
    bank = F.normalize(torch.randn(images, dim, generator=generator, dtype=torch.float64), dim=1)
    index = torch.randint(images, (batch, 1 + negatives), generator=generator)
    return embedding.requires_grad_(), bank, index


def test_the_loss_is_its_definition():
    embedding, bank, index = random_case()
    scores = log_scores(embedding, bank, index, 0.2)
    z = normaliser(scores, 50)
    e, b = embedding.detach().numpy(), bank.numpy()
    raw = np.array([[np.exp(e[i] @ b[j] / 0.2) for j in row] for i, row in enumerate(index.tolist())])
    assert z.item() == pytest.approx(raw.mean() * 50, rel=1e-10)
    assert not z.requires_grad

    total = 0.0
    for row in raw / (raw.mean() * 50):
        noise = 30 / 50
        total -= np.log(row[0] / (row[0] + noise + 1e-7))
        total -= sum(np.log(noise / (score + noise + 1e-7)) for score in row[1:])
    assert contrast_loss(scores, z, 50).item() == pytest.approx(total / 9, rel=1e-10)


def test_gradients_are_those_of_finite_differences():
    embedding, bank, index = random_case(batch=3, negatives=5)
    z = normaliser(log_scores(embedding, bank, index, 0.2), 50)
    assert torch.autograd.gradcheck(lambda e: contrast_loss(log_scores(e, bank, index, 0.2), z, 50), embedding)


def test_no_dependence_on_the_batch_size():
    embedding, bank, index = random_case()

    def loss(embedding, index):
        scores = log_scores(embedding, bank, index, 0.07)
        return contrast_loss(scores, normaliser(scores, 50), 50)

    torch.testing.assert_close(loss(embedding.repeat(2, 1), index.repeat(2, 1)), loss(embedding, index))


def test_float32_is_enough_for_many_negatives():
    """Thousands of terms of 1e-5: summed as log(score + noise) − log(noise) they would drown in rounding."""
    embedding, bank, index = random_case(images=5000, negatives=4000)
    values = []
    for dtype in (torch.float32, torch.float64):
        scores = log_scores(embedding.to(dtype), bank.to(dtype), index, 0.07)
        values.append(contrast_loss(scores, normaliser(scores, 5000), 5000).item())
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_one_step_of_the_method_is_the_definition(make, batch):
    """Loss, Z and banks of a whole step, worked out entry by entry."""
    method = make("crd", negatives=7, embedding_dim=6, contrast_weight=0.8).eval()
    one = batch(method)
    banks = {name: getattr(method, f"{name}_bank").clone() for name in ("student", "teacher")}
    pooled = {"student": method.student(one.images, features=True).pooled, "teacher": method.teach(one).pooled}
    embedding = {name: F.normalize(getattr(method, f"{name}_head")(pooled[name]), dim=1).detach() for name in banks}
    loss = method.losses(one)["contrast"].item()

    negatives = method.class_index.other_images(one.labels, 7, one.streams("negatives"))
    assert (method.info.train_labels[negatives] != one.labels.unsqueeze(1)).all()
    expected = 0.0
    for anchor, other in (("student", "teacher"), ("teacher", "student")):
        entries = banks[other][torch.cat([one.index.unsqueeze(1), negatives], dim=1)]
        scores = torch.einsum("bd,bkd->bk", embedding[anchor], entries).div(0.07).exp()
        z = scores.mean() * len(banks[other])
        assert getattr(method, f"{anchor}_z").item() == pytest.approx(z.item(), rel=1e-4)
        noise = 7 / len(banks[other])
        scores = scores / z
        expected -= (scores[:, 0] / (scores[:, 0] + noise)).log().sum().item() / len(one.index)
        expected -= (noise / (scores[:, 1:] + noise)).log().sum().item() / len(one.index)
    assert loss == pytest.approx(0.8 * expected, rel=1e-4)

    for name, before in banks.items():
        after = getattr(method, f"{name}_bank")
        moved = F.normalize(0.5 * before[one.index] + 0.5 * embedding[name], dim=1)
        torch.testing.assert_close(after[one.index], moved)
        still = torch.ones(len(before), dtype=torch.bool)
        still[one.index] = False
        assert torch.equal(after[still], before[still])


def test_the_backward_pass_sees_the_banks_as_they_were(make, batch):
    """They are moved before it, in place; with momentum 1 they are not, and the gradient is the same."""
    gradients = []
    for momentum in (0.5, 1.0):
        method = make("crd", negatives=7, momentum=momentum)
        for bank in (method.student_bank, method.teacher_bank):
            bank.copy_(F.normalize(bank, dim=1))
        method.losses(batch(method))["contrast"].backward()
        gradients.append(method.student_head.weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_z_is_fixed_by_the_first_batch(make, batch):
    method = make("crd")
    assert method.student_z < 0
    method.losses(batch(method))
    first = method.student_z.clone(), method.teacher_z.clone()
    assert all(z > 0 for z in first)
    method.losses(batch(method, step=1))
    assert (method.student_z, method.teacher_z) == first


def test_negatives_are_redrawn_at_every_step(make, batch):
    method = make("crd")
    drawn = [batch(method, step=step).streams("negatives") for step in (0, 0, 1)]
    labels = torch.tensor([0, 1])
    first, again, later = (method.class_index.other_images(labels, 50, generator) for generator in drawn)
    assert torch.equal(first, again)
    assert not torch.equal(first, later)


def test_banks_and_z_are_saved_and_bounded(make):
    method = make("crd", embedding_dim=12)
    assert method.state_dict().keys() >= BUFFERS
    assert method.student_bank.shape == method.teacher_bank.shape == (24, 12)
    bound = (3 / 12) ** 0.5
    for bank in (method.student_bank, method.teacher_bank):
        assert 0.9 * bound < bank.abs().max() <= bound
        assert abs(bank.mean()) < 0.1 * bound
    assert not torch.equal(method.student_bank, method.teacher_bank)


def test_both_heads_are_trained(make, batch):
    method = make("crd")
    method.losses(batch(method))["contrast"].backward()
    assert method.student_head.weight.grad.abs().max() > 0
    assert method.teacher_head.weight.grad.abs().max() > 0


def test_the_head_runs_in_float32(make, batch):
    method, seen = make("crd"), []
    for head in (method.student_head, method.teacher_head):
        head.register_forward_hook(lambda _module, inputs, output: seen.extend([inputs[0].dtype, output.dtype]))
    with torch.autocast("cpu", torch.bfloat16):
        method.losses(batch(method))
    assert seen == [torch.float32] * 4
    assert method.student_bank.dtype == torch.float32


def test_one_class_alone_is_refused(make):
    with pytest.raises(ValueError, match="at least two classes"):
        make("crd", labels=[1] * 8)


def test_an_image_met_twice_in_a_batch_leaves_its_last_embedding(make, batch):
    assert last_of_each(torch.tensor([4, 2, 4, 7, 2, 4])).tolist() == [5, 4, 5, 3, 4, 5]
    method = make("crd", momentum=0.0).eval()
    one = batch(method)
    one.index[0], one.labels[0] = one.index[3], one.labels[3]
    with torch.no_grad():
        embedding = F.normalize(method.student_head(method.student(one.images, features=True).pooled), dim=1)
    method.losses(one)
    torch.testing.assert_close(method.student_bank[one.index[3]], embedding[3])
