"""openai-python's own tests, unmodified, run against the real service over a real port.

`suite` fetches them, `server` serves what they expect to find (`seeds`), `reset_plugin` renews it before each of their
tests, `left_for_later.toml` says which are not expected to pass and why, and `test_openai_python` runs and judges.
"""
