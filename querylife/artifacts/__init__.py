"""What a build leaves beside the models: the lock of a model repository, and the identity of a model."""
