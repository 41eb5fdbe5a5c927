"""The checker that tests run every annotated function under; an int may stand for a float."""

from beartype import BeartypeConf, beartype

__all__ = ["checked"]

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
