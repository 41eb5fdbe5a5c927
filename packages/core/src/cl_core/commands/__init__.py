"""One frame for every verb: options, recipes, program, outcome."""

__all__: list[str] = []
