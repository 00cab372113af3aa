"""From two descriptions to a verdict."""
