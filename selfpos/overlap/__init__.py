"""Training text against test text."""
