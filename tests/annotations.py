"""How annotations are executed while the tests run: as PEP 484 means them, where an int is also a float."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
