"""The images that pass through networks are counted where they pass, and a method that declares others is refused."""

import pytest
import torch

from kdbench.errors import RunError
from kdbench.method import Method
from kdbench.run.group import Group
from kdbench.run.loop.passes import Passes


class Everything(Method):
    """Two passes of the student, one of a peer, three of the teacher, in all the ways there are."""

    needs_teacher = True
    passes = 2

    def setup(self):
        self.add_peer()
        self.stage_shapes()
        self.stage_shapes(self.teacher)

    def losses(self, batch):
        self.student(batch.images, features=True)
        logits = self.student.run_from(0, self.student.start(batch.images)).logits
        peer = self.peers[0](batch.images)
        self.teach(batch)
        self.teach(batch, "logits", batch_statistics=True)
        taught = self.teach_images(batch.images.flip(3))
        self.teacher.classify(taught.pooled)
        self.student.classify(taught.pooled)
        return {"all": (logits + peer).square().mean()}


def test_a_run_counts_student_peers_and_teachers(small, tmp_path):
    _, outcome = small.trained(tmp_path, Everything, teacher="resnet14")
    steps, anchors = 3 * 72 // 16, 8
    assert outcome.images_seen == steps * 16
    assert outcome.passes == {
        "passes.student": steps * 2 * anchors, "passes.peers": steps * anchors, "passes.teachers": steps * 3 * anchors,
        "passes.per_anchor": 2,
    }  # fmt: skip


def test_setup_and_what_lies_outside_the_losses_do_not_count(small):
    method = small.built(Everything, small.task(), teacher="resnet14")
    passes = Passes(method, Group())
    method.student(torch.zeros(5, 1, 8, 8))
    with passes.counted():
        pass
    assert set(passes.totals().values()) == {0}


@pytest.mark.parametrize(
    ("declared", "really", "sentence"),
    [
        (1, 2, "Other declares 1 image through the student for each anchor, but 2 pass through it; set Other.passes"),
        (3, 2, "Other declares 3 images through the student for each anchor, but 2 pass"),
        (2, 0, "Other declares 2 images through the student for each anchor, but 0 pass"),
        (1, 1.5, "Other declares 1 image through the student for each anchor, but 1.5 pass"),
    ],
)
def test_another_number_than_declared_ends_the_run_at_its_first_step(small, tmp_path, declared, really, sentence):
    class Other(small.Plain):
        passes = declared

        def losses(self, batch):
            if really:
                many = torch.cat([batch.images, batch.images])[: round(really * len(batch.images))]
                return {"all": self.student(many).square().mean()}
            return {"all": self.student.fc.weight.square().mean()}

    with pytest.raises(RunError, match=sentence):
        small.trained(tmp_path, Other)


def test_passes_that_have_no_gradient_count_too(small, tmp_path):
    class Twice(small.Plain):
        def losses(self, batch):
            with torch.no_grad():
                self.student(batch.images)
            return super().losses(batch)

    with pytest.raises(RunError, match="declares 1 image through the student for each anchor, but 2 pass"):
        small.trained(tmp_path, Twice)


def test_the_body_of_the_student_counts_as_the_student(small, tmp_path):
    class OfBody(small.Plain):
        def setup(self):
            self.body = self.student.body()

        def losses(self, batch):
            return {"map": self.body(batch.images).square().mean()}

    _, outcome = small.trained(tmp_path, OfBody)
    assert outcome.passes["passes.student"] == outcome.images_seen


def test_totals_are_taken_up_from_a_state(small):
    passes = Passes(small.built(small.Plain, small.task()), Group())
    before = {"passes.student": 7, "passes.peers": 0, "passes.teachers": 2}
    passes.restore(before)
    assert passes.totals() == before
