"""Human evaluation: which pairs to judge, what raters said, how far they agree."""
