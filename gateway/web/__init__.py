"""What every request passes: middleware, authentication, parameters, errors, OpenAPI and the HTTP server."""
