"""Every setting that a protocol holds reaches the training: another value gives another protocol and other weights."""

import pytest

from kdbench.plan import expand, request
from kdbench.run.execute import run

WORDS = [
    "methods=ce", "dataset=digits", "student=resnet8", "Train.epochs=2", "Train.warmup=0", "Train.batch_size=16",
    "Split.validation=0", "Machine.threads=1", "Measures.corruptions=False", "Measures.images=10", "Measures.noise=()",
]  # fmt: skip
CHANGES = [
    ["Labels.noise=0.5"], ["Labels.noise=0.5", "Labels.noise_kind=asymmetric"], ["Labels.noise=0.5", "Labels.seed=1"],
    ["Labels.per_class=4"], ["Labels.imbalance=3"],
    ["ResizedCrop.min_area=0.3"], ["ResizedCrop.min_area=0.3", "ResizedCrop.max_area=0.5"],
    ["ResizedCrop.min_area=0.3", "ResizedCrop.max_ratio=3"],
    ["Mix.mixup=1"], ["Mix.cutmix=1"], ["Mix.mixup=1", "Mix.cutmix=1"], ["Mix.mixup=1", "Mix.probability=0.5"],
    ["Split.validation=0.2"], ["Split.validation=0.2", "Split.seed=1"],
    ["Augment.padding=0.25"], ["Augment.padding=0.25", "Augment.fill=200"], ["Augment.cutout=0.5"],
    ["Augment.policy=randaugment"], ["Augment.policy=randaugment", "Augment.operations=3"],
    ["Augment.policy=randaugment", "Augment.magnitude=20"], ["Augment.policy=randaugment", "Augment.random_magnitude=True"],
    ["Augment.policy=trivialaugment"], ["Augment.policy=autoaugment"],
    ["Augment.erasing=0.5"], ["Augment.erasing=0.5", "Augment.erasing_max_area=0.1"],
    ["Train.epochs=1"], ["Train.batch_size=8"], ["Train.warmup=1"],
    ["Train.label_smoothing=0.1"], ["Train.precision=bfloat16"], ["Train.clip_norm=0.01"], ["Train.accumulate=2"],
    ["SGD.lr=0.1"], ["SGD.momentum=0.5"], ["SGD.weight_decay=0.1"], ["SGD.nesterov=True"],
    ["Dataset.mean=(0.5,)"], ["Dataset.std=(0.5,)"], ["Dataset.mirrored=True"],
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Protocol and checksum of the weights of runs that were done, by their changes."""
    folder, done = tmp_path_factory.mktemp("runs"), {}

    def of(*changes):
        if changes not in done:
            names = {word.partition("=")[0] for word in changes}
            usual = [word for word in WORDS if word.partition("=")[0] not in names]
            (spec,) = expand.plan(request.parse([*usual, *changes]))
            result = run(spec, folder, None)
            assert result["status"] == "finished", result["error"]
            done[changes] = spec.protocol, result["weights.sha256"]
        return done[changes]

    return of


@pytest.mark.parametrize("changes", CHANGES, ids=lambda words: words[-1])
def test_another_value_gives_another_protocol_and_other_weights(changes, runs):
    changed, usual = runs(*changes), runs(*changes[:-1])
    assert changed[0] != usual[0]
    assert changed[1] != usual[1]
