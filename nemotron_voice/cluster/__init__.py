"""Beyond one machine, on Ray: the server as replicas (Serve), manifests in bulk (Data)."""
