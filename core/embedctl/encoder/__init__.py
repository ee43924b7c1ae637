"""Turning texts into vectors in this process, over a sentence-transformers model.

Imports torch, transformers, sentence-transformers and numpy, and of ours only `records`, `errors` and
`files`, so that it runs alone on a bare GPU machine.
"""
