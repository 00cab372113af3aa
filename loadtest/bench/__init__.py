"""The served model beside its limits and its peers."""
