"""What HTTP asks for: the frame around requests, bodies, the OpenAPI document."""
