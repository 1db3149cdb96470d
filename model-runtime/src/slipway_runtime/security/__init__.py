"""Who may ask: TLS, clients' certificates, and keys, all from mounted files that are read again when they change."""
