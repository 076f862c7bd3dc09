"""Policies acting in environments.

`task` (spaces and rules), `acting` (the policies of all seeds), `seed_environments` (the environments of all seeds),
`environment` (one), `simulator` and `environment_process` (what it runs in), `evaluate`, `policy` (saved and loaded).
"""
