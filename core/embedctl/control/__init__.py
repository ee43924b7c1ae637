"""The engine's façade over a Unix socket: one process runs the engine, any other of the same user attaches.

`server.ControlServer` offers an engine; `client.RemoteEngine` fulfils `EngineFacade` by asking it. What
crosses are the worker's frames; what they hold is told by `codec` and `protocol`.
"""
