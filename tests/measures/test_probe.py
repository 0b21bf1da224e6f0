"""The linear probe against scikit-learn's, and the nearest neighbours against a count by hand."""

import pytest
import torch

from kdbench.measures import probe


@pytest.fixture(scope="module")
def features():
    """Three overlapping classes in six dimensions, of very different scales, one of which does not vary."""
    torch.manual_seed(0)
    labels = torch.arange(90) % 3
    x = torch.randn(90, 6) + torch.nn.functional.one_hot(labels, 6)
    x[:, 1], x[:, 2] = 1e3 * x[:, 1] + 1e4, 1e-3 * x[:, 2]
    x[:, 5] = 0.1
    return x, labels


@pytest.mark.parametrize("penalty", [1.0, 1e-3])
def test_the_linear_probe_is_scikit_learns(features, penalty):
    from sklearn.linear_model import LogisticRegression  # not while tests are collected: 2 s

    x, labels = features
    ours = probe.fit_linear(x, labels, 3, penalty)
    standard = ((x.double() - ours.mean) / ours.scale).numpy()
    theirs = LogisticRegression(C=1 / (penalty * len(x)), tol=1e-10, max_iter=5000).fit(standard, labels.numpy())
    torch.testing.assert_close(ours.weight, torch.from_numpy(theirs.coef_), atol=1e-4, rtol=1e-4)
    probabilities = torch.from_numpy(theirs.predict_proba(standard))
    torch.testing.assert_close(ours(x).softmax(dim=1), probabilities, atol=1e-5, rtol=1e-4)


def test_the_probe_repeats_bit_for_bit_and_does_not_depend_on_where_it_starts(features):
    x, labels = features
    first, again = (probe.fit_linear(x, labels, 3, 0.01) for _ in range(2))
    assert torch.equal(first.weight, again.weight)
    elsewhere = probe.fit_linear(x, labels, 3, 0.01, start=probe.fit_linear(x, labels, 3, 1e-5))
    torch.testing.assert_close(first.weight, elsewhere.weight, atol=1e-5, rtol=1e-4)


def test_the_penalty_with_the_best_validation_accuracy_is_chosen_and_the_largest_of_equals(features):
    x, labels = features
    train, validation = (x[:60], labels[:60]), (x[60:], labels[60:])
    penalty, chosen = probe.choose_penalty(train, validation, 3)
    hits = {
        each: int(
            (
                probe.fit_linear(*train, 3, each, tolerance=probe.CHOICE)(validation[0]).argmax(dim=1) == validation[1]
            ).sum()
        )
        for each in probe.PENALTIES
    }
    assert penalty == max(each for each in hits if hits[each] == max(hits.values()))
    assert int((chosen(validation[0]).argmax(dim=1) == validation[1]).sum()) == max(hits.values())


def test_neighbours_vote_by_their_cosine(monkeypatch):
    train = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 3.0], [0.1, 5.0]])
    labels, queries = torch.tensor([0, 1, 1, 2]), torch.tensor([[9.0, 0.1], [0.0, 0.1], [-1.0, 0.0]])
    assert probe.nearest_neighbours(train, labels, queries[:2], 3).tolist() == [0, 1]
    monkeypatch.setattr(probe, "CHUNK", 1)
    assert probe.nearest_neighbours(train, labels, queries[:2], 3).tolist() == [0, 1]


def test_only_the_twenty_nearest_vote():
    angles = torch.linspace(0, 1, 60)
    train = torch.stack([angles.cos(), angles.sin()], dim=1)
    labels = (torch.arange(60) >= 20).long()
    assert probe.nearest_neighbours(train, labels, train[:1], 2).tolist() == [0]
    assert probe.nearest_neighbours(train, labels, train[40:41], 2).tolist() == [1]
