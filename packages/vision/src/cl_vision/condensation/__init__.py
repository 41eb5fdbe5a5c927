"""Dataset condensation: a few learned pictures a class that train a network in place of many."""

__all__: list[str] = []
