"""HTTP/1.1: connections, routes and answers; the only room that knows status codes."""
