"""What the Hugging Face Hub gets of a student: a folder with its weights and its card."""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path

from kdbench.errors import RunError, UserError, reason
from kdbench.files import write_atomically
from kdbench.run import student_file
from kdbench.store.folder import RunFolder
from kdbench.weights import card, write
from kdbench.weights.write import Agreement

WEIGHTS, CARD = "model.safetensors", "README.md"
"""The names that the Hub expects."""


def write_folder(folder: RunFolder, to: Path, license: str | None = None) -> Agreement:
    """Write the files that a repository of the Hub gets into a local folder.

    Args:
        folder: of a finished run.
        license: identifier of the licence of the weights.

    Returns:
        How the outputs of the weights compare with torch's.

    Raises:
        UserError, RunError: see `student_file.of_run` and `write.write`.
    """
    student = student_file.of_run(folder)
    text = card.text(folder, student.facts, license, WEIGHTS)
    agreement = write.write(student, to / WEIGHTS)
    write_atomically(to / CARD, text.encode())
    return agreement


def check_repository(name: str) -> None:
    """Refuse a name that cannot be a repository's, before anything is written.

    Raises:
        UserError: the package huggingface_hub is missing, or the name is not one of the Hub.
    """
    if find_spec("huggingface_hub") is None:
        raise UserError("--push-to-hub needs the package huggingface_hub; install it with: pip install 'kdbench[hub]'")
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        raise UserError(f"--push-to-hub takes a repository such as NAME/MODEL, not '{name}'") from None


def push(folder: RunFolder, repository: str, license: str | None = None) -> str:
    """Upload a student's weights and card to a repository of the Hub, which is created if it does not exist.

    The user's own login counts, as `hf auth login` or HF_TOKEN gives it.

    Returns:
        The address of the commit.

    Raises:
        UserError, RunError: see `write_folder`.
        RunError: the Hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as local:
        write_folder(folder, Path(local), license)
        hub = HfApi()
        try:
            hub.create_repo(repository, exist_ok=True)
            commit = hub.upload_folder(
                repo_id=repository, folder_path=local, commit_message=f"Student of the run {folder.path.name}"
            )
        except Exception as error:  # of the network, of the Hub, or of the login
            why = " ".join(reason(error).split())[:300]
            raise RunError(f"the upload to {repository} failed: {why}") from error
    return str(commit.commit_url)
