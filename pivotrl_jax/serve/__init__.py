"""Any checkpoint behind an OpenAI-compatible server: `python -m pivotrl_jax.serve --checkpoint=...`.

Start with engine.py, which batches samples; programs.py is what runs on the device and prefixes.py what the
rows of its cache hold. requests.py and replies.py know the protocol, app.py the routes, server.py HTTP.
"""
