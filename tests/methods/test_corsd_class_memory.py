import numpy as np
import pytest
import torch

from kdbench.methods.corsd import class_memory_loss, moved_memory


def softmax(x):
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def test_class_memory_is_its_definition():
    generator = torch.Generator().manual_seed(8)
    memory, seen = torch.zeros(4, 4, dtype=torch.float64), torch.zeros(4, dtype=torch.bool)
    slow: dict[int, np.ndarray] = {}
    for labels in ([0, 0, 1], [1, 2, 1], [0, 3, 2]):
        logits = torch.randn(3, 4, generator=generator, dtype=torch.float64)
        index = torch.tensor(labels)
        expected = []
        for z, label in zip(logits.numpy(), labels, strict=True):
            if label in slow:
                q, p = softmax(slow[label] / 3), softmax(z / 3)
                expected.append((q * np.log(q / p)).sum())
        loss = class_memory_loss(logits, memory[index], seen[index], 3.0)
        assert loss.item() == pytest.approx(np.mean(expected) if expected else 0.0, rel=1e-10, abs=1e-12)

        memory, seen = moved_memory(memory, seen, logits, index, 0.9)
        for label in set(labels):
            mean = logits.numpy()[np.array(labels) == label].mean(0)
            slow[label] = 0.9 * slow[label] + 0.1 * mean if label in slow else mean
        assert set(seen.nonzero().flatten().tolist()) == set(slow)
        for label, row in slow.items():
            np.testing.assert_allclose(memory[label], row)


def test_unseen_classes_give_no_gradient():
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(9), requires_grad=True)
    memory = torch.eye(4)[:3] * 5
    loss = class_memory_loss(logits, memory, torch.tensor([False, True, False]), 3.0)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient[[0, 2]].abs().max() < 1e-7
    assert gradient[1].abs().max() > 1e-3


def test_class_memory_in_the_method(make, batch):
    method = make("corsd", class_memory_weight=0.5)
    assert method.losses(batch(method))["class_memory"].item() == pytest.approx(0, abs=1e-7)  # nothing seen yet
    assert method.memory_seen.any()
    later = method.losses(batch(method, step=1))["class_memory"]
    assert later > 0
    later.backward()
    assert method.state_dict().keys() >= {"memory", "memory_seen"}
    assert not method.memory.requires_grad

    without = make("corsd")
    assert "class_memory" not in without.losses(batch(without))
    assert "memory" not in without.state_dict()
