"""The model: text, vision and fusion towers."""
