"""The model card of an adapter or a whole model, generated from its recipe and results files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from semanticface.errors import ConfigError
from semanticface.hub import card_text
from semanticface.hub.card_example import Example, given_example, rendered_example
from semanticface.hub.card_figures import Figures, read_figures
from semanticface.hub.card_mark import README, RENDERED, marked, read_mark
from semanticface.hub.licences import check_licence
from semanticface.hub.public_recipe import local_base, public, training_data
from semanticface.inference.predictor import Predictor
from semanticface.models.files import NANO, check_files, resolve_model
from semanticface.recipe import read_recipe
from semanticface.utils.files import atomic_open

PICTURE = "example.jpg"
_TAGS = ("semanticface", "face", "facial-expression", "facs", "arkit", "blendshapes", "animation", "avatar")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class CardSettings:
    """Information that is not in the recipe.

    Attributes:
        repo: the model's Hub id, for the heading and the usage example.
        licence: the Hub's id of a licence, such as ``apache-2.0``; None means that none was chosen.
        base: Hub id of an adapter's base, if the recipe has a local folder or nano.
        datasets: Hub ids of the training data.
        results: results files.
        picture: shown instead of rendered faces.
        consent: where consent for ``picture`` is documented, or its licence.
        notes: a Markdown file to include.
        seed: selects the rendered example.
        device: as in ``Predictor.from_pretrained``.
    """

    repo: str | None = None
    licence: str | None = None
    base: str | None = None
    datasets: tuple[str, ...] = ()
    results: tuple[Path, ...] = ()
    picture: Path | None = None
    consent: str | None = None
    notes: Path | None = None
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        for name, ids in (("repo", [self.repo]), ("base", [self.base]), ("datasets", self.datasets)):
            for each in filter(None, ids):
                if not _HUB_ID.fullmatch(each):
                    raise ConfigError(f"{name} {each!r} is not a Hub id: write it as OWNER/NAME.")
        check_licence(self.licence)
        if self.consent is not None and self.picture is None:
            raise ConfigError("consent is for the picture of a person: give the picture, or leave consent out.")


def write_card(model: str, settings: CardSettings, out: Path | None = None, *, force: bool = False) -> Path:
    """Write a model's card, and its example picture next to it.

    Args:
        model: ``nano``, or the folder of a model or adapter.
        settings: information that is not in the recipe.
        out: by default README.md in the model's folder; required for nano, which is part of the package.
        force: replace a card that was edited or written by hand.

    Returns:
        The card's path.

    Raises:
        ConfigError: the card would be overwritten, the results are of another model, or an invalid setting.
        ModelError: the model cannot be loaded.
        PictureError: the picture cannot be used.
    """
    if model != "nano" and not Path(model).is_dir():
        raise ConfigError(f"{model} is no folder: a card is written for a model on this machine.")
    folder, _ = resolve_model(model)
    if out is None:
        if folder == NANO:
            raise ConfigError(
                "nano is part of the package: say where its card goes, such as --out nano-card/README.md."
            )
        out = folder / README
    if out.exists() and not force:
        mark = read_mark(out.read_text(encoding="utf-8", errors="replace"))
        if mark is None or not mark.untouched:
            raise ConfigError(
                f"{out} was {'edited by hand' if mark else 'not written by this command'} and would be lost. Move your "
                "text into a file for --notes, which every new card includes; or replace it with --force."
            )
    recipe = read_recipe(folder)
    check_files(folder, adapter=recipe["kind"] == "adapter")
    figures = [read_figures(path, folder) for path in settings.results]
    notes = _notes(settings.notes)
    predictor = Predictor.from_pretrained(model, device=settings.device)
    if settings.picture is None:
        example, shows = rendered_example(predictor, settings.seed), RENDERED
    else:
        example, shows = given_example(predictor, settings.picture), settings.consent or ""
    text = make_card(model, folder, recipe, settings, figures, example, notes)
    with atomic_open(out.parent / PICTURE, "wb") as file:
        file.write(example.picture)
    with atomic_open(out) as file:
        file.write(marked(text, {PICTURE: (example.picture, shows)}))
    return out


def make_card(
    model: str,
    folder: Path,
    recipe: Mapping[str, Any],
    settings: CardSettings,
    figures: Sequence[Figures],
    example: Example,
    notes: str = "",
) -> str:
    """Return the text of a card; see ``write_card``."""
    name = settings.repo.rpartition("/")[2] if settings.repo else folder.resolve().name
    data = training_data(recipe)
    front = front_matter(name, recipe, settings, figures)
    caption = example.caption + (f" {settings.consent}." if settings.consent else "")
    sections = [
        ("", f"{_lead(recipe)}\n\n{card_text.about()}"),
        ("Example", f"![Faces, each with the model's prediction on its right]({PICTURE})\n\n{caption}"),
        ("", "```\n{}\n```".format("\n\n".join(example.answers))),
        ("Figures", _figures(figures)),
        ("Usage", card_text.use(settings.repo or public(model))),
        ("Intended and excluded uses", card_text.USES),
        ("Limits", card_text.limits(data)),
        ("Training", card_text.making(recipe, data, settings.base)),
        ("Emotion", card_text.emotion(recipe)),
        ("Privacy", card_text.privacy(recipe, data)),
        ("Licence", _licence(recipe, settings.licence)),
        ("Notes", notes),
        ("Citation", card_text.CITATION),
    ]
    body = "\n\n".join(f"## {head}\n\n{text}" if head else text for head, text in sections if text)
    card = f"---\n{front.to_yaml()}\n---\n\n# {name}\n\n{body}\n"
    ModelCard(card)  # raises on front matter that the Hub would reject
    return card


def front_matter(
    name: str, recipe: Mapping[str, Any], settings: CardSettings, figures: Sequence[Figures]
) -> ModelCardData:
    """Return the card's metadata for the Hub; the model index holds the figures of the results files, if any."""
    adapter = recipe["kind"] == "adapter"
    results = [result for each in figures for result in each.results]
    base = hub_base(recipe, settings.base)
    return ModelCardData(
        language="en",
        license=settings.licence,
        library_name="peft" if adapter else "transformers",
        pipeline_tag="image-text-to-text",
        base_model=base,
        base_model_relation="adapter" if base else None,
        tags=[*_TAGS, *(["lora"] if adapter else [])],
        datasets=list(settings.datasets) or None,
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name=name if results else None,
        eval_results=results or None,
    )


def hub_base(recipe: Mapping[str, Any], named: str | None) -> str | None:
    """Return the Hub id of an adapter's base, if it has one."""
    base = recipe["base"]
    if not base or named:
        return named if base else None
    return None if base["name"] == "nano" or local_base(recipe) else base["name"]


def _lead(recipe: Mapping[str, Any]) -> str:
    kind = "A LoRA adapter" if recipe["kind"] == "adapter" else "A vision-language model"
    return (
        f"{kind} that predicts the 52 ARKit blendshape coefficients from a picture of a face, with an analysis of "
        "which muscles moved. Made with the SemanticFace toolkit."
    )


def _figures(figures: Sequence[Figures]) -> str:
    if not figures:
        return (
            "Not measured: this card was written without a results file, so it makes no claim about quality.\n"
            "`semanticface evaluate` and `python eval/benchmark.py` write such files."
        )
    return "\n\n".join(each.text for each in figures)


def _licence(recipe: Mapping[str, Any], licence: str | None) -> str:
    if licence is None:
        text = "None was chosen: ask the authors before you use the model."
    else:
        text = f"{licence}, for the contents of this repository."
    if recipe["kind"] == "adapter":
        text += " The repository holds only the adapter's weights; the base has its own licence."
    return text


def _notes(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the notes {path} cannot be read: {error}.") from error
