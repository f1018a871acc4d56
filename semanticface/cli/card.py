"""``semanticface card``: write a model card, or the folder of a demo Space."""

from __future__ import annotations

import argparse
from pathlib import Path

from semanticface.cli import arguments
from semanticface.cli.arguments import Subparsers, add_command
from semanticface.errors import ConfigError


def add_commands(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "card",
        "write the model card of a model or adapter, or the folder of its demo Space",
        "MODEL is nano or a folder. The card says how the model was made (from its semanticface.json), how good it is\n"
        "(only from --results), how to use it, its limits and excluded uses, and shows its answer to rendered faces.\n"
        "It is written to README.md in the model's folder, next to example.jpg, and can be regenerated at any time;\n"
        "a card that you edited is kept unless you pass --force. Put your own text into --notes.\n\n"
        "With --space DIR, write the folder of a Hub Space instead: app.py, README.md, requirements.txt, this package\n"
        "and the model. Try it: cd DIR && python app.py",
        "semanticface card outputs/my-adapter --repo ann/my-adapter --licence apache-2.0",
        "semanticface card outputs/my-adapter --results outputs/after/metrics.json",
        "semanticface card nano --results eval/results/benchmark.json --out nano-card/README.md",
        "semanticface card outputs/my-adapter --space outputs/my-space",
    )
    parser.add_argument("model", metavar="MODEL", help='"nano", or the folder of a model or adapter')
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--out", type=Path, metavar="README.md", help="the card (default: README.md in the folder)")
    where.add_argument("--space", type=Path, metavar="DIR", help="write the folder of a demo Space, not a card")
    parser.add_argument("--repo", metavar="OWNER/NAME", help="the model's name on the Hub")
    parser.add_argument("--licence", metavar="ID", help="the Hub's id of a licence, such as apache-2.0")
    parser.add_argument("--base", metavar="OWNER/NAME", help="the base's name on the Hub, if you trained on a folder")
    parser.add_argument(
        "--datasets", nargs="+", default=[], metavar="OWNER/NAME", help="the training data's names on the Hub"
    )
    parser.add_argument(
        "--results",
        type=Path,
        nargs="+",
        default=[],
        metavar="X.json",
        help="benchmark.json of eval/benchmark.py, metrics.json of semanticface evaluate",
    )
    parser.add_argument("--picture", type=Path, metavar="P", help="show this picture (metadata removed), not a render")
    parser.add_argument("--consent", metavar="TEXT", help="where consent for --picture is documented, or its licence")
    parser.add_argument("--notes", type=Path, metavar="X.md", help="your own Markdown to include")
    arguments.add_seed(parser, "selects the rendered faces")
    arguments.add_device(parser)
    parser.add_argument("--force", action="store_true", help="overwrite a card edited by hand")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    # nano's licence is known; for other models only their makers can say.
    licence = (options.licence or ("apache-2.0" if options.model == "nano" else "")).lower() or None
    if options.space is not None:
        from semanticface.hub.licences import check_licence
        from semanticface.hub.space import write_space

        for name in ("base", "datasets", "results", "picture", "consent", "notes"):
            if getattr(options, name):
                raise ConfigError(f"--{name} is for a card: leave it out with --space, or write the card first.")
        check_licence(licence)
        write_space(options.model, options.space, repo=options.repo, licence=licence, force=options.force)
        print(f"{options.space}: the Space. Try it here: cd {options.space} && python app.py")
        return 0
    from semanticface.hub.card import CardSettings, write_card

    settings = CardSettings(
        repo=options.repo,
        licence=licence,
        base=options.base,
        datasets=tuple(options.datasets),
        results=tuple(options.results),
        picture=options.picture,
        consent=options.consent,
        notes=options.notes,
        seed=options.seed,
        device=options.device,
    )
    print(write_card(options.model, settings, options.out, force=options.force))
    return 0
