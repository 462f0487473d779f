"""Models as static web pages: they run in the browser, without a server."""
