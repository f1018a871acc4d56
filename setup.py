"""The list of packages: all of ``semanticface/``, and ``prompts/`` installed as ``semanticface.prompt_texts``."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["semanticface*"]), "semanticface.prompt_texts"])
