"""Check that a model may be published: everybody it was trained on agreed to that, and still does."""

from __future__ import annotations

from pathlib import Path

from semanticface.data.consent import NAME, read_consent, real_people
from semanticface.data.faces import load_faces
from semanticface.data.provenance import Source, read_people, sources_from_recipe
from semanticface.errors import ConfigError, DatasetError
from semanticface.recipe import read_recipe


def require_publish(model: str | Path) -> None:
    """Check that all people a model was trained on agreed to ``publish``, by the consent lists of its datasets.

    Base models (kind ``base``) are trained on rendered faces only, as ``train/pretrain.py`` ensures. Rendered people
    need no consent, and their dataset may be missing.

    Args:
        model: the folder of a base or an adapter.

    Raises:
        ConfigError: somebody did not agree or no longer does (each is named), or was deleted from the dataset since; or
            that is not known: the dataset is missing or was changed, or the model has no sources.
        ModelError: the model folder is missing or cannot be read.
    """
    folder = Path(model)
    recipe = read_recipe(folder)
    if recipe["kind"] != "adapter":
        return
    sources = read_people(folder) or sources_from_recipe(recipe)
    if sources is None:
        raise ConfigError(
            f"{folder} does not record its training data, so it is not known whose consent publishing needs. Train it "
            "again with this version, starting from an adapter that was also trained with it."
        )
    refused = [why for source in sources for why in _refusals(source, folder)]
    if refused:
        listed = "".join(f"\n  {why}" for why in dict.fromkeys(refused))
        raise ConfigError(f"{folder} may not be published:{listed}")


def _refusals(source: Source, model: Path) -> list[str]:
    """Return why a source forbids publishing, a sentence each."""
    if source.people == 0:
        return []
    dataset = Path(source.dataset)
    unknown = f"it was trained on the split {source.split} of {dataset}, whose people are not known"
    if not dataset.is_dir():
        return [f"{unknown}: no such folder. Run this where the training was run, or restore the dataset."]
    try:
        faces = load_faces(dataset, source.split)
    except DatasetError as error:
        return [f"{unknown}: {error}"]
    consent = read_consent(dataset)
    people = real_people(faces, rendered=consent.rendered)
    if source.hashes and faces._fingerprint != source.fingerprint:
        people = {subject for subject in people if source.includes(subject)}
        if missing := len(source.hashes) - len(people):
            who = "1 person it was trained on is" if missing == 1 else f"{missing} people it was trained on are"
            return [f"{who} no longer in {dataset}. Train it again without them."]
    elif faces._fingerprint != source.fingerprint:
        return [f"{dataset} has changed since {model} was trained on it. Train it again."]
    if "" in people:
        return [f"{dataset}, {source.split}: some rows do not say who is in them. Add the names, and train again."]
    refused = [why for subject in sorted(people) if (why := consent.refusal(subject, "publish"))]
    return [f"{dataset / NAME}: {why}. Ask them and add it there, or train without them." for why in refused]
