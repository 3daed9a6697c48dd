"""What the tests share: tiny models, random forests, made-up data, and a loopback endpoint."""
