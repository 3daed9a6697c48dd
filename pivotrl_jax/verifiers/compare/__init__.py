"""Do these two do the same? Arguments, paths, shell commands, edits, web queries, literals, schemas.

Start with the file that your verifier needs.
"""
