"""HTTP below the protocols: connections, the middleware around every request, and what routes share to read one."""
