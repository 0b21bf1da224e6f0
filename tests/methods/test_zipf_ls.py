import math

import pytest
import torch
import torch.nn.functional as F

from kdbench.methods.zipf_ls import votes_of, zipf_labels, zipf_loss


def votes_of_positions(positions, classes):
    """Votes (B, K) of the class of each position, (B, P)."""
    return F.one_hot(positions.long(), classes).sum(dim=1)


def test_the_loss_is_the_reference(reference):
    case = reference("zipf_ls")
    labels, logits = case.fixed["labels"], case.student["logits"]
    votes = votes_of_positions(case.fixed["votes"], logits.shape[1])
    case.check(zipf_loss(logits, zipf_labels(votes, labels, case.params["power"]).double(), labels))


def test_the_loss_is_its_definition():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(3, 5, generator=generator, dtype=torch.float64), torch.tensor([0, 4, 2])
    votes = torch.tensor([[4, 3, 3, 0, 0], [0, 1, 2, 3, 4], [0, 0, 0, 0, 10]])
    ranks = [[1, 2, 2, 4, 4], [5, 4, 3, 2, 1], [2, 2, 2, 2, 1]]
    expected = []
    for z, y, rank in zip(logits.tolist(), labels.tolist(), ranks, strict=True):
        others = [k for k in range(5) if k != y]
        total = sum(1 / rank[k] for k in others)
        sum_exp = sum(math.exp(z[k]) for k in others)
        expected.append(
            sum(1 / rank[k] / total * math.log((1 / rank[k] / total) / (math.exp(z[k]) / sum_exp)) for k in others)
        )
    loss = zipf_loss(logits, zipf_labels(votes, labels).double(), labels)
    assert loss.item() == pytest.approx(sum(expected) / 3, rel=1e-6)


def test_each_position_has_a_vote():
    logits = torch.zeros(1, 2, 3, 4)
    logits[0, 0, :, 1] = 1
    logits[0, 1, :2, 3] = 1
    logits[0, 1, 2, 2] = 1
    assert votes_of(logits).tolist() == [[0, 3, 1, 2]]


def test_two_classes_have_no_other_one_to_learn():
    logits, labels = torch.randn(4, 2, requires_grad=True), torch.tensor([0, 1, 1, 0])
    loss = zipf_loss(logits, zipf_labels(torch.tensor([[3, 1]] * 4), labels), labels)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert logits.grad.abs().max() < 1e-6


@pytest.mark.parametrize("student", ["resnet8", "four_stages", "mobilenetv2", "vit_tiny"])
def test_terms_are_the_weighted_losses_and_voting_leaves_no_trace(make, batch, student):
    method = make("zipf_ls", student=student, weight=0.5, image=(1, 16, 16))
    one = batch(method)
    with torch.no_grad():
        for _ in range(2):  # running statistics move with the student's own pass alone
            method.student(one.images)
    state = {name: value.clone() for name, value in method.student.state_dict().items()}
    method.student(one.images)
    after = {name: value.clone() for name, value in method.student.state_dict().items()}
    method.student.load_state_dict(state)
    terms = method.losses(one)
    assert all(torch.equal(value, after[name]) for name, value in method.student.state_dict().items())
    assert list(terms) == ["ce", "zipf"]
    sum(terms.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())


def test_votes_are_those_of_the_classifier_at_each_position_of_the_enlarged_map(make, batch):
    method = make("zipf_ls", weight=0.5).eval()
    one = batch(method)
    out = method.student(one.images, features=True)
    large = F.interpolate(out.stages[-1], scale_factor=2, mode="bilinear", align_corners=False)
    votes = votes_of_positions(
        torch.stack([method.student.fc(large[:, :, y, x]).argmax(dim=1) for y in range(4) for x in range(4)], dim=1), 4
    )
    expected = 0.5 * zipf_loss(out.logits, zipf_labels(votes, one.labels), one.labels)
    assert method.losses(one)["zipf"].item() == pytest.approx(expected.item(), rel=1e-5)
