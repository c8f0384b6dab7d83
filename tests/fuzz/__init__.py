"""Bytes for every reader of LUMOS: whatever they are, it reads them or says in one line what is wrong.

``test_readers.py`` gives each reader some drawn bytes. For maintainers, ``scripts/reliability.py fuzz`` lets atheris
look for others: it follows the branches of LUMOS's own code. LUMOS_FUZZ_PYTHON is a Python that has atheris beside all
else, an environment of its own.
"""
