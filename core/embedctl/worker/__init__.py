"""The native model's own process: the server in it, the client beside it, the frames between them.

The client side imports neither torch nor anything that does.
"""
