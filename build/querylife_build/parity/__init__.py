"""The parity gate: exports and engines against the eager model."""
