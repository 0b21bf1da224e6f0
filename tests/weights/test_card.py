"""Model cards: what they claim of made-up runs, and what the Hub would get."""

import shutil
from dataclasses import replace

import pytest
import torch

import kdbench
from kdbench.errors import RunError, UserError
from kdbench.report.stats.intervals import mean_interval
from kdbench.run import student_file
from kdbench.store.folder import RunFolder
from kdbench.weights import card, hub

pytest.importorskip("safetensors")
pytestmark = pytest.mark.usefixtures("own_plugins")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """ce and kd on digits, with two seeds each."""
    folder = tmp_path_factory.mktemp("runs")
    little = {"Train.epochs": 1, "Train.warmup": 0, "Measures.corruptions": False, "Measures.noise": ()}
    words = "methods=ce,kd", "dataset=digits", "student=resnet8", "teacher=resnet14", "seeds=0,1"
    kdbench.plan([*words], runs=folder, **little).run()
    return folder


@pytest.fixture
def kd(runs):
    (path,) = runs.glob("kd-digits-resnet8-s0-*")
    return RunFolder(runs, path.name)


def facts(folder):
    return student_file.of_run(folder).facts


def test_the_card_has_the_interval_over_the_runs_of_the_line(kd, runs):
    results = kdbench.load_results(runs)
    accuracies = list(results[(results["method"] == "kd")]["accuracy.last"])
    interval = mean_interval(accuracies)
    text = card.text(kd, facts(kd), "mit")
    assert "Over 2 runs of the same protocol, method, values and teacher (seeds 0, 1)" in text
    assert f"**{interval.mean:.2f} ± {interval.half_width:.2f} %**" in text
    assert "Difference from ce, paired by seed: " in text
    assert f"**{kd.typed_result()['accuracy.last']:.2f} %**" in text


def test_one_run_gives_no_interval(kd, tmp_path):
    shutil.copytree(kd.path, tmp_path / kd.path.name)
    alone = RunFolder(tmp_path, kd.path.name)
    text = card.text(alone, facts(alone))
    assert "n = 1 (seed 0): one run gives no interval." in text
    assert "±" not in text
    assert "license" not in text


def test_the_card_names_data_teacher_method_cost_and_command(kd):
    result = kd.typed_result()
    text = card.text(kd, facts(kd), file="student.safetensors")
    for part in (
        result["data.sha256"], result["teacher.run"], result["teacher.sha256"], "| temperature | 4 |", result["protocol"],
        f"| Parameters | {result['cost.parameters']:,} |", f"    {result['provenance.command']}\n", "10: 0, 1, 2, 3",
        'kdbench.load_student("student.safetensors")',
    ):  # fmt: skip
        assert part in text, part


def test_the_front_matter_is_what_the_hub_reads(kd):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    data = huggingface_hub.ModelCard(card.text(kd, facts(kd), "cc-by-4.0")).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("cc-by-4.0", "kdbench", "image-classification")
    assert data.datasets == ["digits"]
    assert data.metrics == ["accuracy"]
    assert {"knowledge-distillation", "kd", "resnet8"} <= set(data.tags)


def test_a_strangers_names_stay_text(kd):
    odd = replace(facts(kd), method="x\n---\n# y", dataset='"a": [', class_names=("<b>", *"123456789"))
    text = card.text(kd, odd)
    assert "\n# y" not in text
    assert "<b>" not in text
    assert text.count("\n---\n") == 1


@pytest.mark.parametrize("name", ["a b", "mit\n", "", "-x"])
def test_a_licence_is_an_identifier(name):
    with pytest.raises(UserError, match=r"^--license takes an identifier such as mit"):
        card.check_license(name)
    card.check_license("apache-2.0")
    card.check_license(None)


def test_the_folder_for_the_hub_is_all_that_one_needs(kd, tmp_path):
    hub.write_folder(kd, tmp_path / "hf", "mit")
    assert sorted(path.name for path in (tmp_path / "hf").iterdir()) == ["README.md", "model.safetensors"]
    built = student_file.read(tmp_path / "hf" / hub.WEIGHTS)
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(built.on_pixels()(images), student_file.of_run(kd).on_pixels()(images))
    assert (tmp_path / "hf" / hub.CARD).read_text() == card.text(kd, built.facts, "mit", "model.safetensors")


def test_the_written_student_is_loaded_in_one_line(kd, tmp_path):
    student_file.write(student_file.of_run(kd), tmp_path / "student.safetensors")
    pixels = torch.rand(3, 1, 8, 8)
    assert torch.allclose(
        kdbench.load_student(tmp_path / "student.safetensors")(pixels), kdbench.load_student(kd.path)(pixels), atol=1e-6
    )


def test_the_hub_gets_the_files_of_the_folder(kd, tmp_path, monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    hub.write_folder(kd, tmp_path / "local")

    def upload(self, *, repo_id, folder_path, commit_message):
        shutil.copytree(folder_path, tmp_path / repo_id)
        return huggingface_hub.CommitInfo(f"https://hf.co/{repo_id}/commit/1", commit_message, "", "1")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", lambda self, repo_id, exist_ok: None)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload)
    assert hub.push(kd, "me/model") == "https://hf.co/me/model/commit/1"
    for name in (hub.WEIGHTS, hub.CARD):
        assert (tmp_path / "me/model" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()

    def refuse(self, repo_id, exist_ok):
        raise ConnectionError("401: no\ntoken")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    with pytest.raises(RunError, match=r"^the upload to me/model failed: 401: no token$"):
        hub.push(kd, "me/model")


def test_what_is_not_a_repository_is_refused():
    pytest.importorskip("huggingface_hub")
    hub.check_repository("me/model")
    with pytest.raises(UserError, match=r"takes a repository such as NAME/MODEL, not 'a b'"):
        hub.check_repository("a b")
