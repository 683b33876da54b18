"""The site: settings, routes and the server that carries them."""

__version__ = "0.1.0"
