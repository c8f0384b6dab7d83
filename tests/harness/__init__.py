"""Trials of wrong words, damaged files, kills and full disks: generated, each in a process of its own.

``scripts/reliability.py`` does them by the hundred and writes the record of ``docs/reliability.md``; the tests of this
folder do a few of each kind. A process that does trials imports everything and never trains, so that it can be forked.
"""
