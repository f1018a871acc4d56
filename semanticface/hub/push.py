"""Upload listed files to the Hub in one commit, and look at what it then says that it has.

Everything goes through ``huggingface_hub``: its login (``hf auth login`` or ``HF_TOKEN``), its endpoint
(``HF_ENDPOINT``), its retries. A token is never taken as an argument and never told.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import validate_repo_id

from semanticface.errors import ConfigError, SemanticFaceError
from semanticface.hub.upload_list import UploadEntry

Kind = Literal["model", "space"]
_LOGIN = "Log in with `hf auth login`, or set HF_TOKEN to a token that may write."
_TOKEN = re.compile(r"hf_[A-Za-z0-9]+")


@dataclass(frozen=True, slots=True)
class Pushed:
    """What the Hub has after an upload.

    Attributes:
        url: where to look at it.
        commit: its new head.
        private: whether it is.
        others: names of files that were there before and are not of this upload.
    """

    url: str
    commit: str
    private: bool
    others: tuple[str, ...]


def check_id(repo: str) -> None:
    """Raise a ConfigError unless a repository's id is one, with its owner."""
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ConfigError(f"{repo!r} cannot be called that on the Hub: {error}") from error
    if repo.count("/") != 1:
        raise ConfigError(f"{repo!r} does not say whose it is: write it as OWNER/NAME.")


def push(listed: Sequence[UploadEntry], repo: str, *, kind: Kind = "model", public: bool = False) -> Pushed:
    """Upload the included ones of listed files to a repository, made where there is none.

    Args:
        listed: of which none may be refused.
        repo: as OWNER/NAME.
        kind: of repository; a Space is one of Gradio.
        public: what a new repository is, and one that is there has to be.

    Raises:
        ConfigError: a file is refused, or the repository is there and not as public as asked.
        SemanticFaceError: the Hub refuses or cannot be reached, or does not have afterwards what was uploaded.
    """
    check_id(repo)
    refused = [each for each in listed if each.verdict == "refused"]
    if refused:
        raise ConfigError(f"{refused[0].path}: {refused[0].why}. Nothing was uploaded.")
    files = [each for each in listed if each.verdict == "included"]
    api = HfApi()
    with _explained(repo, api.endpoint):
        api.whoami()
        head = _head(api, repo, kind, public)
        operations = [
            CommitOperationAdd(each.name, each.path if each.content is None else each.content) for each in files
        ]
        message = "Upload with semanticface push"
        commit = api.create_commit(repo, operations, commit_message=message, repo_type=kind, parent_commit=head)
        there = api.list_repo_tree(repo, recursive=True, revision=commit.oid, repo_type=kind)
        found = {entry.path: entry for entry in there if isinstance(entry, RepoFile)}
        private = bool(api.repo_info(repo, repo_type=kind).private)
    wrong = [each.name for each in files if not _same(each, found.get(each.name))]
    url = f"{api.endpoint}/{'spaces/' if kind == 'space' else ''}{repo}"
    if wrong:
        raise SemanticFaceError(f"{url}: the Hub does not have {', '.join(wrong)} as uploaded. Push again.")
    if private == public:
        raise SemanticFaceError(f"{url} is {'private' if private else 'public'} now, not as asked. See its settings.")
    others = sorted(set(found) - {each.name for each in files} - {".gitattributes"})
    return Pushed(url, commit.oid, private, tuple(others))


def _head(api: HfApi, repo: str, kind: Kind, public: bool) -> str | None:
    """Return the head of a repository, which is made where there is none."""
    try:
        info = api.repo_info(repo, repo_type=kind)
    except RepositoryNotFoundError:
        api.create_repo(repo, private=not public, repo_type=kind, space_sdk="gradio" if kind == "space" else None)
        info = api.repo_info(repo, repo_type=kind)
    if bool(info.private) == public:
        state, fix = ("private", "leave --public out") if info.private else ("public", "say --public if you mean that")
        raise ConfigError(f"{repo} is there already and {state}: {fix}, or change it in its settings on the Hub.")
    return info.sha


def _same(listed: UploadEntry, there: RepoFile | None) -> bool:
    """Whether the Hub has a file's bytes, by the hash that it tells: sha256 of large files, git's of others."""
    if there is None or there.size != listed.size:
        return False
    if there.lfs is not None:
        digest = hashlib.sha256()
        _feed(digest, listed)
        return digest.hexdigest() == there.lfs.sha256
    digest = hashlib.sha1(f"blob {listed.size}\0".encode())
    _feed(digest, listed)
    return digest.hexdigest() == there.blob_id


def _feed(digest: hashlib._Hash, listed: UploadEntry) -> None:
    if listed.content is not None:
        digest.update(listed.content)
        return
    with listed.path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)


@contextlib.contextmanager
def _explained(repo: str, endpoint: str) -> Iterator[None]:
    """Turn what the Hub and the way to it can answer within a block into an error that says what to do."""
    try:
        yield
    except LocalTokenNotFoundError as error:
        raise SemanticFaceError(f"{endpoint} does not know who you are. {_LOGIN}") from error
    except OfflineModeIsEnabled as error:
        raise SemanticFaceError("HF_HUB_OFFLINE is set, so nothing can be uploaded. Unset it.") from error
    except HfHubHTTPError as error:
        raise SemanticFaceError(_refusal(error, repo, endpoint)) from error
    except (HTTPError, OSError) as error:
        raise SemanticFaceError(
            f"{endpoint} cannot be reached ({_plain(error)}). Check the connection, and HF_ENDPOINT where it is set; "
            "the same command tries again."
        ) from error
    except (ValueError, RuntimeError) as error:
        if isinstance(error.__cause__, HfHubHTTPError):  # of one of several files
            raise SemanticFaceError(_refusal(error.__cause__, repo, endpoint)) from error
        raise SemanticFaceError(f"{endpoint} refused the upload to {repo}: {_plain(error)}.") from error


def _refusal(error: HfHubHTTPError, repo: str, endpoint: str) -> str:
    code = error.response.status_code
    owner = repo.partition("/")[0]
    if code == 401:
        return f"{endpoint} does not accept your token (401). {_LOGIN}"
    if code == 403:
        return f"{endpoint}: your token may not write to {owner} (403). Use one that may, or another owner."
    if code in (409, 412):
        return f"{endpoint}/{repo} was changed by somebody at the same moment ({code}). Look at it, and push again."
    if code == 404:
        return f"{endpoint} has no {owner}, or no {repo} that you may see (404). Check the spelling."
    if code == 429 or code >= 500:
        return f"{endpoint} is busy or broken ({code}). Try again later."
    return f"{endpoint} refused the upload to {repo} ({code}): {_plain(error)}."


def _plain(error: Exception) -> str:
    """Return the first line of an error, without anything that looks like a token."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return _TOKEN.sub("hf_…", lines[0] if lines else type(error).__name__).rstrip(".")
