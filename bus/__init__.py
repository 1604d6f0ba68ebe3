"""What all services share: messages, subjects, settings, the connection, the JetStream layout.

Services import `bus` and never each other. What two of them must agree on is declared here, once.
"""
