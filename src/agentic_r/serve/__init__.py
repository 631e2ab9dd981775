"""The service: searches over HTTP and MCP, batched across clients, and a web page.

`offer` says what is served, `batching` computes it, `wire` reads and writes the messages,
`routes` answers them, `http` is the shell around them all and `server` the process.
"""
