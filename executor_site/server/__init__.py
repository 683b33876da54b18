"""The HTTP and WebSocket server: Daphne, with bodies that stream and a stop that drains.

Importing this package installs Twisted's reactor; only what runs the server should do so.
"""

from executor_site.server.server import Server, serve

__all__ = ["Server", "serve"]
