"""The preprocessing contract: text to token ids, pictures to pixels."""
