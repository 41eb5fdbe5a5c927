"""What users' files hold: documents, arrays, tables, labels; one reader of each for all packages.

Whatever lies in such a file, reading it ends: sizes, depths and what unpacks have stated limits.
"""

__all__: list[str] = []
