"""What all programs share: config, work directory, hosts, resuming.

Start with run.py; check_config.py says what a config's values must satisfy.
"""
