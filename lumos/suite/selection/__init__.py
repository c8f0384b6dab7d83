"""How well ways to choose features do on problems whose right features are known: ``lumos suite features``.

Read in this order: ``problems`` (what is to be found), ``rankings`` (who looks for it), ``study`` (cell by cell, into a
file of records) and ``table`` (records and published figures, as a table and a figure).
"""
