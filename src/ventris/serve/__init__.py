"""The server: OpenAI's HTTP API over one engine.

``app.create_app`` puts it together; ``run.serve`` runs it. Needs the extra ``serve``.
"""
