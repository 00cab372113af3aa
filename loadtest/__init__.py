"""Load tests with Locust, and the bench."""
