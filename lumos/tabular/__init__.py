"""Tables of named columns, numbers and categories, and the network that takes them as they are.

Read in this order: ``categories`` (from values to codes) and ``network`` (raw columns in, physical units out).
"""
