"""The tests mirror the source tree: tests/dissectors/test_version.py tests dissectors/version.py."""
