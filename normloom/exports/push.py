"""Upload an export to a data set repository of the Hugging Face hub, as one commit with the version as its tag.

What an earlier export put there and this one no longer has is removed in the same commit; other files stay.
"""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

from normloom.core.errors import NormloomError, UsageError
from normloom.exports.folder import SUMS, listed, parsed_sums
from normloom.history.exports import write_export
from normloom.store.store import Store

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from normloom.exports.export import Exported

TOKEN, ENDPOINT = "HF_TOKEN", "HF_ENDPOINT"  # names of environment variables
WITHOUT_XET = "HF_HUB_DISABLE_XET"
_KIND = "dataset"


class PushError(NormloomError):
    """An export is written, but could not be uploaded."""


def require_token() -> str:
    """Return the token in the environment; raises UsageError if there is none."""
    token = os.environ.get(TOKEN, "").strip()
    if not token:
        raise UsageError(f"--push needs a token with write access in {TOKEN}: https://huggingface.co/settings/tokens")
    return token


def push(store: Store, exported: Exported, repository: str, *, private: bool = True) -> str:
    """Upload an export and return the address of the commit; a new repository is private by default.

    The server is that of HF_ENDPOINT, the Hugging Face hub by default. Raises PushError.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi(endpoint=os.environ.get(ENDPOINT), token=require_token(), library_name="normloom")
    version, folder = exported.release.version, exported.path
    write_export(store, exported.record.model_copy(update={"pushed": repository}))
    try:
        api.create_repo(repository, repo_type=_KIND, private=private, exist_ok=True)
        names = sorted([*listed(folder), SUMS])
        gone = sorted(_pushed_before(api, repository) - set(names))
        commit = api.create_commit(
            repository,
            [
                *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(folder / name)) for name in names),
                *(CommitOperationDelete(path_in_repo=name) for name in gone),
            ],
            repo_type=_KIND,
            commit_message=f"Release {version}",
        )
        api.create_tag(repository, tag=f"v{version}", repo_type=_KIND, revision=commit.oid, exist_ok=True)
    except HFValidationError as error:
        raise UsageError(f"--push {repository!r} is not the name of a repository such as me/savacu: {error}") from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        cure = f"check the name and the token in {TOKEN}"
        if "xet" in str(error):
            cure = f"if the hub has no Xet storage, set {WITHOUT_XET}=1"
        raise PushError(
            f"the export in {folder} is written, but {repository} rejected it: {_first_line(error)}; {cure}, and "
            "rerun the command with --overwrite"
        ) from error
    return str(commit.commit_url)


def _pushed_before(api: HfApi, repository: str) -> set[str]:
    """Return the files that an earlier export put into a repository, by the list that it left there."""
    from huggingface_hub.errors import EntryNotFoundError

    with tempfile.TemporaryDirectory() as cache:
        try:
            path = api.hf_hub_download(repository, SUMS, repo_type=_KIND, cache_dir=cache)
        except EntryNotFoundError:
            return set()
        with open(path, encoding="utf-8") as file:  # noqa: PTH123  # a path as the library gives it
            there = set(parsed_sums(file.read()))
    return there & set(api.list_repo_files(repository, repo_type=_KIND))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
