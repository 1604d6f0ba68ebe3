"""The shared home of every service: messages, subjects, settings, connection, JetStream layout.

Services import `bus` and never each other; what two of them must agree on stands here, once.
"""
