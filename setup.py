"""The list of packages: ``semanticface/``, and what is installed below it: ``prompts/`` and the scripts."""

from setuptools import find_packages, setup

SCRIPTS = [f"semanticface.scripts.{folder}" for folder in ("train", "eval", "data_prep")]

setup(packages=[*find_packages(include=["semanticface*"]), "semanticface.prompt_texts", *SCRIPTS])
