"""What all programs share: config, work directory, hosts, resuming.

Start with run.py. options.py documents every field of a config; check_config.py says how they must fit.
"""
