"""One network for many small sets of MR volumes: shared filters, a batch norm and head a domain."""

__all__: list[str] = []
