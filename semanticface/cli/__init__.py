"""The ``semanticface`` command: one module per subcommand."""
