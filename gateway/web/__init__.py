"""What every request passes: server, middleware, authentication, parameters, errors, OpenAPI."""
