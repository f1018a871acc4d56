"""Whether something may be published, and how a person is deleted."""
