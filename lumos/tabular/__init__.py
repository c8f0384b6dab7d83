"""Tables of named columns, numbers and categories, and the network that takes them as they are.

Read in this order: ``files`` (CSV, Parquet, HDF5 and NetCDF), ``categories`` (from values to codes), ``network`` (raw
columns in, physical units out) and ``predictor`` (a trained network for other files).
"""
