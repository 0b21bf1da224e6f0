import pytest
import torch

from kdbench.method import Features, distillation
from kdbench.methods.irg import authors_parts, changes, edges, semckd_parts, zoo_parts


def outputs(seed: int = 0, batch: int = 5, widths=(4, 6), pooled: int = 3) -> Features:
    """Made-up outputs, with two maps of 4 and 2 pixels a side."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(batch, *shape, generator=generator, dtype=torch.float64).requires_grad_()

    return Features(draw(7), (draw(widths[0], 4, 4), draw(widths[1], 2, 2)), draw(pooled))


def without_stages(features: Features) -> Features:
    return Features(features.logits, (), features.pooled)


def of_case(case, whose: str) -> Features:
    inputs = case.student if whose == "student" else case.fixed
    features = inputs[f"{whose}_features"]
    return Features(inputs.get(f"{whose}_logits", features), tuple(case.maps(whose)), features)


def slow_edges(x):
    rows = x.flatten(1).tolist()
    squared = [[sum((v - w) ** 2 for v, w in zip(a, b, strict=True)) for b in rows] for a in rows]
    return [[value / max(map(max, squared)) for value in row] for row in squared]


def slow_changes(x, deeper):
    """Of maps (B, C, 4, 4) and (B, n · C, 2, 2)."""
    (images, channels), repeats = x.shape[:2], deeper.shape[1] // x.shape[1]
    distances = [0.0] * images
    for i in range(images):
        for c in range(channels):
            for h in range(2):
                for w in range(2):
                    ours = x[i, c, 2 * h : 2 * h + 2, 2 * w : 2 * w + 2].mean().item()
                    theirs = deeper[i, repeats * c : repeats * (c + 1), h, w].mean().item()
                    distances[i] += (ours - theirs) ** 2
    return [distance / max(distances) for distance in distances]


def mean_square(a, b):
    flat = [(v - w) ** 2 for x, y in zip(a, b, strict=True) for v, w in zip(x, y, strict=True)]
    return sum(flat) / len(flat)


@pytest.mark.parametrize("name", ["irg_graph", "irg_widths", "irg_transform"])
def test_the_reading_of_semckd_is_the_reference(reference, name):
    case = reference(name)
    parts = semckd_parts(of_case(case, "student"), of_case(case, "teacher"))
    assert ("vertices" in parts, "transformation" in parts) == (name == "irg_graph", name == "irg_transform")
    case.check(torch.stack(list(parts.values())).sum())


def test_the_reading_of_the_zoo_is_the_reference(reference):
    case = reference("irg_zoo")
    parts = zoo_parts(of_case(case, "student"), of_case(case, "teacher"))
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(case.entry["parts"], rel=1e-6)
    case.check(torch.stack([case.params[f"w_{name}"] * part for name, part in parts.items()]).sum())


def test_edges_and_changes_are_their_definitions():
    x = outputs()
    for each in (*x.stages, x.pooled):
        assert edges(each).tolist() == [pytest.approx(row, rel=1e-10, abs=1e-12) for row in slow_edges(each)]
    first, second = outputs(widths=(3, 6)).stages
    assert changes(first, second).tolist() == pytest.approx(slow_changes(first, second), rel=1e-10)


def test_widths_that_do_not_divide_each_other():
    """5 channels to 2: the first three and the last three, as adaptive pooling cuts them."""
    first, second = outputs(widths=(2, 5)).stages
    narrowed = torch.stack([second[:, :3].mean(dim=1), second[:, 2:].mean(dim=1)], dim=1)
    torch.testing.assert_close(changes(first, second), changes(first, narrowed))


def test_the_readings_are_their_definitions():
    """On a student of widths 4 and 8 and a teacher of 2 and 6."""
    x, t = outputs(0, widths=(4, 8), pooled=3), outputs(1, widths=(2, 6), pooled=5)
    ours, theirs = ([*map(slow_edges, (*each.stages, each.pooled))] for each in (x, t))
    between = [mean_square(a, b) for a, b in zip(ours, theirs, strict=True)]
    moved = [slow_changes(*each.stages) for each in (x, t)]
    expected = {
        semckd_parts: {
            "edges": between[2],
            "transformation": (mean_square(ours[0], ours[1]) - mean_square(theirs[0], theirs[1])) ** 2,
        },
        zoo_parts: {
            "vertices": (x.logits - t.logits).square().mean().item(),
            "edges": sum(between) / 3,
            "transformation": mean_square([moved[0]], [moved[1]]),
        },
        authors_parts: {"edges": 25 * between[2] / 10, "transformation": 5 * mean_square([moved[0]], [moved[1]]) / 10},
    }
    for parts, values in expected.items():
        assert {name: part.item() for name, part in parts(x, t).items()} == pytest.approx(values, rel=1e-9)


def test_stages_that_follow_one_another_are_all_compared():
    x, t = outputs(0), outputs(1)
    three, their_three = (Features(o.logits, (*o.stages, o.stages[0] * 0.5 + 1), o.pooled) for o in (x, t))
    for parts in (semckd_parts, authors_parts):
        first = parts(x, t)["transformation"]
        last = [Features(o.logits, o.stages[1:], o.pooled) for o in (three, their_three)]
        both = parts(three, their_three)["transformation"]
        torch.testing.assert_close(both, first + parts(*last)["transformation"])
    last = [Features(o.logits, o.stages[1:], o.pooled) for o in (three, their_three)]
    torch.testing.assert_close(zoo_parts(three, their_three), zoo_parts(*last))


@pytest.mark.parametrize("parts", [semckd_parts, zoo_parts, authors_parts])
def test_gradients_are_those_of_finite_differences(parts):
    x, t = outputs(0, batch=4), outputs(1, batch=4)

    def total(pooled, first, second):
        return torch.stack(list(parts(Features(x.logits, (first, second), pooled), t).values())).sum()

    assert torch.autograd.gradcheck(total, (x.pooled, *x.stages), fast_mode=True)


@pytest.mark.parametrize("parts", [semckd_parts, zoo_parts, authors_parts])
def test_the_order_of_the_images_does_not_matter(parts):
    x, t = outputs(0), outputs(1)
    order = torch.tensor([3, 0, 1, 4, 2])
    moved = (Features(o.logits[order], tuple(m[order] for m in o.stages), o.pooled[order]) for o in (x, t))
    torch.testing.assert_close(parts(*moved), parts(x, t))


def test_distances_do_not_depend_on_scale_and_place():
    x = outputs().pooled
    torch.testing.assert_close(edges(5 * x + 2), edges(x), rtol=1e-9, atol=1e-12)


def test_distances_lose_no_digits_far_from_the_origin():
    near = torch.randn(20, 50, generator=torch.Generator().manual_seed(0))
    near[0] = near[1] + 1e-3  # of two images that are almost equal, too
    far = near * 0.01 + 100
    exact = torch.cdist(far.double(), far.double()).square()
    torch.testing.assert_close(edges(far).double(), exact / exact.max(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 0.7])
@pytest.mark.parametrize("parts", [semckd_parts, zoo_parts, authors_parts])
def test_all_images_equal(parts, value, dtype):
    x, t = outputs(0), outputs(1)
    equal = [torch.full_like(each, value, dtype=dtype).requires_grad_() for each in (x.logits, *x.stages, x.pooled)]
    other = Features(t.logits.to(dtype), tuple(m.to(dtype) for m in t.stages), t.pooled.to(dtype))
    loss = torch.stack(list(parts(Features(equal[0], tuple(equal[1:3]), equal[3]), other).values())).sum()
    assert loss.isfinite()
    assert (edges(equal[3]) == 0).all()
    assert (edges(equal[1]) == 0).all()
    gradients = torch.autograd.grad(loss, equal, allow_unused=True, materialize_grads=True)
    assert all(gradient.isfinite().all() and gradient.norm() < 10 for gradient in gradients)


def test_two_images_equal():
    x, t = outputs(0), outputs(1)
    pooled = x.pooled.detach().clone()
    pooled[1] = pooled[3]
    pooled.requires_grad_()
    loss = semckd_parts(Features(x.logits, (), pooled), without_stages(t))["edges"]
    (gradient,) = torch.autograd.grad(loss, pooled)
    assert gradient.isfinite().all()
    assert 0 < gradient.norm() < 10


def expected_terms(method, parts, one, stages):
    out, taught = (network(one.images, features=True) for network in (method.student, method.teacher))
    cut = [Features(each.logits, each.stages[len(each.stages) - stages :], each.pooled) for each in (out, taught)]
    weights = {"vertices": 0.5, "edges": 3.0, "transformation": 7.0}
    terms = {name: weights[name] * part.item() for name, part in parts(*cut).items()}
    return {**terms, "kd": 0.5 * distillation(out.logits, taught.logits, 3.0).item()}


@pytest.mark.parametrize(
    ("reading", "parts", "stages"), [("semckd", semckd_parts, 3), ("zoo", zoo_parts, 2), ("authors", authors_parts, 3)]
)
def test_terms_are_the_weighted_parts_of_the_reading(make, batch, reading, parts, stages):
    """Stages are paired from the deepest: resnet18 has four."""
    weights = {"vertex_weight": 0.5, "edge_weight": 3.0, "transformation_weight": 7.0}
    method = make("irg", teacher="resnet18", reading=reading, kd_weight=0.5, temperature=3.0, **weights).eval()
    one = batch(method)
    terms = {name: term.item() for name, term in method.losses(one).items()}
    assert terms.pop("ce") == pytest.approx(make("ce").eval().losses(one)["ce"].item(), rel=1e-5)
    assert terms == pytest.approx(expected_terms(method, parts, one, stages), rel=1e-4)


def test_defaults_are_edges_vertices_and_distillation(make, batch):
    method = make("irg")
    assert method.losses(batch(method)).keys() == {"ce", "edges", "vertices", "kd"}
    method = make("irg", teacher="resnet8x4")
    assert method.losses(batch(method)).keys() == {"ce", "edges", "kd"}


@pytest.mark.parametrize("reading", ["semckd", "zoo", "authors"])
@pytest.mark.parametrize(
    ("student", "teacher"), [("resnet18", "resnet8"), ("wrn_16_1", "resnet8x4"), ("vgg8", "vit_tiny")]
)
def test_networks_of_other_widths_and_stages(make, batch, reading, student, teacher):
    method = make("irg", reading=reading, student=student, teacher=teacher, transformation_weight=1.0)
    terms = method.losses(batch(method))
    assert all(term.isfinite() for term in terms.values())
    assert "transformation" in terms
