"""May a model be shown to everybody? Only if everybody it learnt from agreed to that, and still does."""

from __future__ import annotations

from pathlib import Path

from semanticface.data.consent import NAME, read_consent, real_people
from semanticface.data.faces import load_faces
from semanticface.data.provenance import Source, read_people, sources_in
from semanticface.errors import ConfigError, DatasetError
from semanticface.recipe import read_recipe


def require_publish(model: str | Path) -> None:
    """Check that all people whom a model learnt from agreed to ``publish``, by the lists beside its datasets.

    Whole bases (kind ``base``) learn from rendered faces alone, which ``train/pretrain.py`` sees to; of people who were
    rendered nobody is asked, and their dataset need not be there any more.

    Args:
        model: the folder of a base or an adapter.

    Raises:
        ConfigError: somebody did not agree, or not any more, each by name; somebody it learnt from is not in the
            dataset any more; or nobody can say: the dataset is missing or was changed, or the model tells none.
        ModelError: no model folder, or one that cannot be read.
    """
    folder = Path(model)
    recipe = read_recipe(folder)
    if recipe["kind"] != "adapter":
        return
    sources = read_people(folder) or sources_in(recipe)
    if sources is None:
        raise ConfigError(
            f"{folder} does not tell what it learnt from, so nobody knows who had to agree to its being published. "
            "Train it again with this version, beginning from an adapter that was trained with it too."
        )
    refused = [why for source in sources for why in _refusals(source, folder)]
    if refused:
        listed = "".join(f"\n  {why}" for why in dict.fromkeys(refused))
        raise ConfigError(f"{folder} may not be published:{listed}")


def _refusals(source: Source, model: Path) -> list[str]:
    """Return why a source forbids to publish, a sentence each."""
    if source.people == 0:
        return []
    dataset = Path(source.dataset)
    nobody = f"it learnt from the split {source.split} of {dataset}, of which nobody can say who is in it"
    if not dataset.is_dir():
        return [f"{nobody}: no such folder here. Start from where its training was started, or put the dataset back."]
    try:
        faces = load_faces(dataset, source.split)
    except DatasetError as error:
        return [f"{nobody}: {error}"]
    consent = read_consent(dataset)
    there = real_people(faces, rendered=consent.rendered)
    if faces._fingerprint == source.fingerprint:
        learnt = there
    elif source.hashes:
        learnt = {subject for subject in there if source.includes(subject)}
        if gone := len(source.hashes) - len(learnt):
            number = "1 person" if gone == 1 else f"{gone} people"
            return [f"{number} it learnt from are not in {dataset} any more. Train it anew without them."]
    else:
        return [f"{dataset} was changed since {model} learnt from it. Train it again."]
    if "" in learnt:
        return [f"{dataset}, {source.split}: some rows do not say who is in them. Say it there, and train again."]
    refused = [why for subject in sorted(learnt) if (why := consent.refusal(subject, "publish"))]
    return [f"{dataset / NAME}: {why}. Ask them and write it there, or train without them." for why in refused]
