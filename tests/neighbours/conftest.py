"""The other extensions are installed in an environment of their own: see `make test-neighbours`."""

from importlib.util import find_spec

if find_spec("flask_talisman") is None:
    collect_ignore_glob = ["test_*.py"]
