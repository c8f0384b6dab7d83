"""atheris is no part of the environment that runs tests."""

collect_ignore = ["run.py"]
