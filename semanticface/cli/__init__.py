"""The `semanticface` command, one file a subcommand."""
